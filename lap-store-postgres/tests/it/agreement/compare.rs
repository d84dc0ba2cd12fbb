//! Calls both stores and compares their answers.

use std::fmt::Debug;

/// Fences are drawn in another order when several items are taken at once.
pub(crate) fn comparable(answer: &impl Debug) -> String {
    let mut text = String::new();
    let whole = format!("{answer:?}");
    let mut parts = whole.split("fence: ");
    text.push_str(parts.next().unwrap_or_default());
    for part in parts {
        text.push_str("fence");
        text.push_str(part.trim_start_matches(|c: char| c.is_ascii_digit()));
    }
    text
}

macro_rules! both {
    ($world:expr, $method:ident($first:expr $(, $more:expr)*)) => {{
        // Arguments are random, so they are made once.
        let first = $first;
        let (left, right) = both!(@more $world, $method, first; $($more),*);
        assert_eq!(
            left.as_ref().map(comparable).map_err(ToString::to_string),
            right.as_ref().map(comparable).map_err(ToString::to_string),
            "{} in step {}", stringify!($method), $world.step
        );
        (left, right)
    }};
    (@more $world:expr, $method:ident, $first:ident;) => {
        ($world.memory.$method($first.clone()).await, $world.postgres.$method($first).await)
    };
    (@more $world:expr, $method:ident, $first:ident; $second:expr) => {{
        let second = $second;
        ($world.memory.$method($first, second).await, $world.postgres.$method($first, second).await)
    }};
    (@more $world:expr, $method:ident, $first:ident; $second:expr, $third:expr) => {{
        let (second, third) = ($second, $third);
        ($world.memory.$method($first, second, third).await, $world.postgres.$method($first, second, third).await)
    }};
}

/// The same, with arguments that depend on an item.
macro_rules! both_under {
    ($world:expr, $items:expr, $method:ident($make:expr)) => {{
        let (left, right): &(WorkItem, WorkItem) = &$items;
        let make = $make;
        let memory = $world.memory.$method(make(left)).await;
        let postgres = $world.postgres.$method(make(right)).await;
        assert_eq!(
            memory.as_ref().map(comparable).map_err(ToString::to_string),
            postgres.as_ref().map(comparable).map_err(ToString::to_string),
            "{} in step {}",
            stringify!($method),
            $world.step
        );
        (memory.unwrap(), postgres.unwrap())
    }};
}

pub(crate) use {both, both_under};
