//! What the agent may do without asking.

use serde_json::{Map, Value, json};

/// opencode's `permission` for an agent's policy: one of `allow`, `ask`, `deny` for everything, or one per tool (or per
/// pattern of a tool's input). What the policy does not name is allowed, because nobody sits in front of most sessions;
/// questions are not offered unless the policy names `question`, because then each would wait for nobody.
pub(super) fn permission(policy: &Value) -> Value {
    let mut all = Map::new();
    all.insert("*".to_owned(), Value::from("allow"));
    all.insert("question".to_owned(), Value::from("deny"));
    match policy {
        Value::String(action) => {
            all.insert("*".to_owned(), Value::from(checked(action)));
        }
        Value::Object(tools) => {
            for (tool, rule) in tools {
                all.insert(tool.clone(), rule_of(rule));
            }
        }
        _ => {}
    }
    // A question is itself the asking.
    if all["question"] == "ask" {
        all.insert("question".to_owned(), Value::from("allow"));
    }
    Value::Object(all)
}

fn rule_of(rule: &Value) -> Value {
    match rule {
        Value::Object(patterns) => patterns
            .iter()
            .map(|(pattern, action)| {
                (
                    pattern.clone(),
                    Value::from(checked(action.as_str().unwrap_or_default())),
                )
            })
            .collect::<Map<_, _>>()
            .into(),
        other => Value::from(checked(other.as_str().unwrap_or_default())),
    }
}

/// A word nobody knows must not allow anything.
fn checked(action: &str) -> &'static str {
    match action {
        "allow" => "allow",
        "ask" => "ask",
        _ => "deny",
    }
}

/// The body of a reply to a permission request, from what a client sent: a word, a yes or no, or
/// `{reply, message?}`.
pub(super) fn permission_reply(reply: &Value) -> Option<Value> {
    let (word, message) = match reply {
        Value::Object(all) => (all.get("reply")?, all.get("message").and_then(Value::as_str)),
        other => (other, None),
    };
    let reply = match word {
        Value::Bool(true) => "once",
        Value::Bool(false) => "reject",
        Value::String(word) => match word.as_str() {
            "once" | "allow" | "yes" => "once",
            "always" => "always",
            "reject" | "deny" | "no" => "reject",
            _ => return None,
        },
        _ => return None,
    };
    let mut body = json!({ "reply": reply });
    if let Some(message) = message {
        body["message"] = Value::from(message);
    }
    Some(body)
}

/// The body of an answer to questions: `{answers: [["label"], ...]}`, a list, or one text for one question.
/// `None`: the client does not want to answer.
pub(super) fn question_reply(reply: &Value) -> Option<Value> {
    let answers = match reply {
        Value::Object(all)
            if all
                .get("reject")
                .is_some_and(|reject| *reject == Value::Bool(true)) =>
        {
            return None;
        }
        Value::Object(all) => all.get("answers").or_else(|| all.get("reply"))?,
        other => other,
    };
    let list = match answers {
        Value::Array(list) => list.clone(),
        Value::String(word) if word == "reject" => return None,
        Value::String(text) => vec![Value::from(text.as_str())],
        _ => return None,
    };
    let each = |answer: Value| {
        if answer.is_array() {
            answer
        } else {
            json!([answer])
        }
    };
    Some(json!({"answers": list.into_iter().map(each).collect::<Vec<_>>()}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_allowed_unless_the_policy_says_otherwise() {
        assert_eq!(
            permission(&Value::Null),
            json!({"*": "allow", "question": "deny"})
        );
        assert_eq!(permission(&json!("ask"))["*"], "ask");
        assert_eq!(
            permission(&json!({"bash": "ask"})),
            json!({"*": "allow", "bash": "ask", "question": "deny"})
        );
        assert_eq!(permission(&json!({"question": "ask"}))["question"], "allow");
        let patterns = json!({"bash": {"*": "ask", "git status *": "allow", "rm *": "explode"}});
        let expected = json!({"*": "ask", "git status *": "allow", "rm *": "deny"});
        assert_eq!(permission(&patterns)["bash"], expected);
        assert_eq!(permission(&json!("nonsense"))["*"], "deny");
    }

    #[test]
    fn replies_come_in_many_forms() {
        for once in [
            json!("once"),
            json!("allow"),
            json!(true),
            json!({"reply": "once"}),
        ] {
            assert_eq!(permission_reply(&once), Some(json!({"reply": "once"})));
        }
        let no = permission_reply(&json!({"reply": "reject", "message": "not that"}));
        assert_eq!(no, Some(json!({"reply": "reject", "message": "not that"})));
        assert_eq!(permission_reply(&json!("perhaps")), None);
        assert_eq!(
            question_reply(&json!("Blue")),
            Some(json!({"answers": [["Blue"]]}))
        );
        assert_eq!(
            question_reply(&json!({"answers": [["a", "b"]]})),
            Some(json!({"answers": [["a", "b"]]}))
        );
        for no in [
            json!("reject"),
            json!({"reject": true}),
            json!({"reply": "reject"}),
            Value::Null,
        ] {
            assert_eq!(question_reply(&no), None, "{no}");
        }
    }
}
