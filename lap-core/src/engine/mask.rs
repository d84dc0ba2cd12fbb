//! What is shown in place of a secret, and that it is never stored as one.

use std::collections::BTreeMap;

use crate::agent::AgentSpec;
use crate::error::{Error, Result};
use crate::secret::Secret;

const STARS: &str = "********";
/// How much of the end of a value a mask shows.
const SHOWN: usize = 2;

/// Eight stars, and the last two characters when the value is long enough not to be given away by them.
pub(super) fn mask(value: &Secret) -> String {
    const LONG: usize = 12;
    let text = value.expose();
    let count = text.chars().count();
    let tail: String = if count >= LONG {
        text.chars().skip(count - SHOWN).collect()
    } else {
        String::new()
    };
    format!("{STARS}{tail}")
}

/// Whether the value looks like what [`mask`] makes of one.
pub(super) fn is_mask(value: &Secret) -> bool {
    let tail = value.expose().strip_prefix(STARS);
    tail.is_some_and(|tail| tail.chars().count() <= SHOWN)
}

/// A mask of a variable that the agent does not have was meant to be something else than the new value.
pub(super) fn no_masks(
    operation: &'static str,
    stored: &AgentSpec,
    values: &BTreeMap<String, Secret>,
) -> Result<()> {
    let strange = |(name, value): &(&String, &Secret)| is_mask(value) && !stored.env_vars.contains_key(*name);
    match values.iter().find(strange) {
        None => Ok(()),
        Some((name, _)) => Err(Error::invalid(
            operation,
            format!("env_vars.{name}"),
            "this is the mask of a value; send the value",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn what_a_mask_makes_is_known_as_a_mask() {
        for value in ["", "short", "a-long-enough-secret", "lang-genug-äöü"] {
            assert!(is_mask(&Secret::new(mask(&Secret::new(value)))), "{value}");
        }
        for value in ["", "*******", "********abc", "x********"] {
            assert!(!is_mask(&Secret::new(value)), "{value}");
        }
    }

    #[test]
    fn no_mask_becomes_a_value() {
        let values = BTreeMap::from([("NEW".to_owned(), Secret::new("********XY"))]);
        let refused = no_masks("t", &AgentSpec::default(), &values).unwrap_err();
        assert_eq!(
            (refused.kind(), refused.field()),
            (ErrorKind::Invalid, Some("env_vars.NEW"))
        );
    }
}
