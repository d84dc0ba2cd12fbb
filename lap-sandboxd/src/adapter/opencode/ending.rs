//! How a turn ended, read from the messages.

use lap_harness::{TurnFailure, Usage};
use serde_json::Value;

use crate::adapter::{Ending, TurnEnd};

/// Longer messages say nothing more.
const MAX_MESSAGE: usize = 2000;

/// The end of the turn whose message is at `at`; `None` while its last answer is being written. `last`: do not wait
/// for it any longer.
pub(super) fn of(messages: &[Value], at: usize, told: Option<&Value>, last: bool) -> Option<TurnEnd> {
    let answers: Vec<&Value> = messages[at..]
        .iter()
        .filter(|message| message["info"]["role"] == "assistant")
        .collect();
    let Some(reply) = answers.last() else {
        return match told {
            Some(error) => Some(of_error(error)),
            None if last => Some(failed("opencode ended the turn without an answer")),
            None => None,
        };
    };
    let info = &reply["info"];
    let error = Some(&info["error"]).filter(|error| !error.is_null());
    if error.is_none() && info["time"]["completed"].is_null() && !last {
        return None;
    }
    let ending = match error {
        Some(error) => ending(error),
        None if info["time"]["completed"].is_null() => match told {
            Some(error) => ending(error),
            None => Ending::Failed(failure("the answer broke off")),
        },
        None => Ending::Completed,
    };
    Some(TurnEnd {
        ending,
        reply: Some((*reply).clone()),
        usage: Some(usage(&answers)),
    })
}

/// The end of a turn of which there is an error only.
pub(super) fn of_error(error: &Value) -> TurnEnd {
    TurnEnd {
        ending: ending(error),
        reply: None,
        usage: None,
    }
}

/// A turn that failed before there was anything to read.
pub(super) fn failed(message: impl Into<String>) -> TurnEnd {
    TurnEnd {
        ending: Ending::Failed(failure(message)),
        reply: None,
        usage: None,
    }
}

fn failure(message: impl Into<String>) -> TurnFailure {
    TurnFailure {
        message: message.into(),
        status: None,
    }
}

fn ending(error: &Value) -> Ending {
    let name = error["name"].as_str().unwrap_or("an unknown error");
    let data = &error["data"];
    if name == "MessageAbortedError" {
        return Ending::Stopped;
    }
    // Some messages carry a stack trace.
    let message = data["message"]
        .as_str()
        .and_then(|message| message.lines().next());
    let message: String = message.unwrap_or(name).chars().take(MAX_MESSAGE).collect();
    let status = data["statusCode"]
        .as_u64()
        .and_then(|status| u16::try_from(status).ok());
    let message = match (name, status) {
        ("APIError", Some(status)) => format!("the model gateway answered {status}: {message}"),
        ("APIError", None) => format!("the model gateway failed: {message}"),
        _ => message,
    };
    Ending::Failed(TurnFailure { message, status })
}

fn usage(answers: &[&Value]) -> Usage {
    let mut sum = Usage::default();
    for info in answers.iter().map(|answer| &answer["info"]) {
        let tokens = |pointer: &str| info.pointer(pointer).and_then(Value::as_u64).unwrap_or(0);
        sum.input_tokens +=
            tokens("/tokens/input") + tokens("/tokens/cache/read") + tokens("/tokens/cache/write");
        sum.output_tokens += tokens("/tokens/output") + tokens("/tokens/reasoning");
        // opencode says 0 where it knows no price.
        if let Some(cost) = info["cost"].as_f64().filter(|cost| *cost > 0.0) {
            sum.cost = Some(sum.cost.unwrap_or(0.0) + cost);
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn assistant(extra: Value) -> Value {
        let mut info = json!({"id": "msg_2", "role": "assistant", "time": {"created": 1}, "cost": 0,
            "tokens": {"input": 11, "output": 7, "reasoning": 1, "cache": {"read": 2, "write": 0}}});
        for (name, value) in extra.as_object().unwrap() {
            info[name] = value.clone();
        }
        json!({"info": info, "parts": []})
    }

    #[test]
    fn an_answer_ends_a_turn_when_it_is_whole() {
        let user = json!({"info": {"id": "msg_1", "role": "user"}, "parts": []});
        let growing = [user.clone(), assistant(json!({}))];
        assert!(of(&growing, 0, None, false).is_none());
        assert!(matches!(
            of(&growing, 0, None, true).unwrap().ending,
            Ending::Failed(_)
        ));
        let whole = [
            user.clone(),
            assistant(json!({"time": {"created": 1, "completed": 2}, "finish": "tool-calls"})),
            assistant(json!({"time": {"created": 1, "completed": 2}})),
        ];
        let end = of(&whole, 0, None, false).unwrap();
        assert!(matches!(end.ending, Ending::Completed));
        let usage = end.usage.unwrap();
        assert_eq!(
            (usage.input_tokens, usage.output_tokens, usage.cost),
            (26, 16, None)
        );
        assert!(of(std::slice::from_ref(&user), 0, None, false).is_none());
        assert!(of(&[user], 0, Some(&json!({"name": "UnknownError"})), false).is_some());
    }

    #[test]
    fn errors_say_what_the_gateway_said() {
        let error = json!({"name": "APIError", "data": {"message": "no such key", "statusCode": 401}});
        let end = of(&[assistant(json!({ "error": error }))], 0, None, false).unwrap();
        let Ending::Failed(failure) = end.ending else {
            panic!("{end:?}")
        };
        assert_eq!(failure.message, "the model gateway answered 401: no such key");
        assert_eq!(failure.status, Some(401));
        let aborted = json!({"name": "MessageAbortedError", "data": {"message": "Aborted"}});
        assert!(matches!(of_error(&aborted).ending, Ending::Stopped));
        let unknown =
            json!({"name": "UnknownError", "data": {"message": "Model not found: a/b.\n    at main"}});
        let Ending::Failed(failure) = of_error(&unknown).ending else {
            panic!()
        };
        assert_eq!(failure.message, "Model not found: a/b.");
    }
}
