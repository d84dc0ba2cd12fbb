//! What the model does about a conversation: a pure function of it.

use std::time::Duration;

use serde_json::{Value, json};

/// Tools that run a shell command, by the names of the harnesses.
const SHELLS: [&str; 7] = [
    "bash",
    "Bash",
    "shell",
    "exec_command",
    "shell_command",
    "local_shell",
    "run",
];
/// The file in which the model notes what it was asked.
const NOTES: &str = "lap-notes.md";
/// More of a command's output is not repeated.
const LONGEST_OUTPUT: usize = 400;
/// More of a request is not noted.
const LONGEST_NOTE: usize = 200;
/// Between the pieces of `SLOW`, so that a test can act in between.
const SLOW: Duration = Duration::from_millis(250);
/// Between the pieces of an ordinary answer, so that a person sees it stream.
const TYPING: Duration = Duration::from_millis(8);

/// What the model does.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Plan {
    /// Answers with an HTTP error.
    Fail(u16),
    /// Calls one tool.
    Call { tool: String, arguments: Value },
    /// Says these pieces with this pause between them.
    Say { pieces: Vec<String>, pause: Duration },
}

/// What a chat completion call leads to.
pub(super) fn plan(call: &Value) -> Plan {
    let messages = call["messages"].as_array().map(Vec::as_slice).unwrap_or_default();
    let request = messages
        .iter()
        .rev()
        .find(|message| message["role"] == "user")
        .map(text)
        .unwrap_or_default();
    let request = without_reminders(&request);
    let command = request
        .lines()
        .find_map(|line| Some(line.split_once("TOOL: ")?.1.trim()));
    if let Some(result) = messages
        .last()
        .filter(|message| message["role"] == "tool")
        .map(text)
    {
        return match command {
            Some(_) => say(
                format!("TOOL_RESULT_SEEN: {}", first(&result, LONGEST_OUTPUT)),
                Duration::ZERO,
            ),
            None => say(report(&result), TYPING),
        };
    }
    if let Some(status) = number_after(&request, "FAIL ").and_then(|number| u16::try_from(number).ok()) {
        return Plan::Fail(status);
    }
    let shell = shell(call);
    if let Some((command, (tool, parameters))) = command.zip(shell) {
        return Plan::Call {
            tool: tool.to_owned(),
            arguments: arguments(parameters, command),
        };
    }
    if let Some(count) = number_after(&request, "SLOW ") {
        let pieces = (0..count.min(10_000))
            .map(|piece| format!("chunk{piece} "))
            .collect();
        return Plan::Say { pieces, pause: SLOW };
    }
    if request.contains("PING") || request.contains("PONG") {
        return say(
            format!("PONG {}", last(request.trim(), LONGEST_NOTE)),
            Duration::ZERO,
        );
    }
    match shell {
        Some((tool, parameters)) => Plan::Call {
            tool: tool.to_owned(),
            arguments: arguments(parameters, &look_around(&request)),
        },
        None => say(
            format!(
                "This is the demo model. It was offered no shell tool, so all it can do is repeat: {}",
                first(request.trim(), LONGEST_NOTE)
            ),
            TYPING,
        ),
    }
}

/// The text of a message, whether it is one string or parts.
fn text(message: &Value) -> String {
    match &message["content"] {
        Value::String(text) => text.clone(),
        Value::Array(parts) => {
            let texts: Vec<&str> = parts.iter().filter_map(|part| part["text"].as_str()).collect();
            texts.join("\n")
        }
        _ => String::new(),
    }
}

/// Harnesses put notes of their own into the user's message; they must not steer.
fn without_reminders(text: &str) -> String {
    const OPEN: &str = "<system-reminder>";
    const CLOSE: &str = "</system-reminder>";
    let mut rest = text;
    let mut kept = String::new();
    while let Some((before, after)) = rest.split_once(OPEN) {
        kept.push_str(before);
        rest = after.split_once(CLOSE).map_or("", |(_, after)| after);
    }
    kept.push_str(rest);
    kept
}

fn number_after(text: &str, word: &str) -> Option<u64> {
    text.match_indices(word).find_map(|(at, _)| {
        let digits: String = text[at + word.len()..]
            .chars()
            .take_while(char::is_ascii_digit)
            .collect();
        digits.parse().ok()
    })
}

fn shell(call: &Value) -> Option<(&str, &Value)> {
    let functions = call["tools"].as_array()?.iter().map(|tool| &tool["function"]);
    let named = |function: &'_ Value| SHELLS.contains(&function["name"].as_str().unwrap_or_default());
    let function = functions.into_iter().find(|function| named(function))?;
    Some((function["name"].as_str()?, &function["parameters"]["properties"]))
}

/// The command in the shape the tool's parameters ask for.
fn arguments(properties: &Value, command: &str) -> Value {
    if !properties["cmd"].is_null() {
        return json!({ "cmd": command });
    }
    if properties["command"]["type"] == "array" {
        return json!({ "command": ["bash", "-lc", command] });
    }
    if !properties["description"].is_null() {
        return json!({ "command": command, "description": "Look at the workspace" });
    }
    json!({ "command": command })
}

/// Notes the request in a file and looks at what is there: something real that a person can check.
fn look_around(request: &str) -> String {
    let line = request.trim().lines().next().unwrap_or_default();
    let note = first(line, LONGEST_NOTE).replace('\'', r"'\''");
    format!("printf -- '- %s\\n' '{note}' >> {NOTES} && ls -A && echo --- && cat {NOTES}")
}

fn report(result: &str) -> String {
    format!(
        "I noted your request in {NOTES} and looked around in the workspace. This is what I saw:\n\n{}\n\n\
         I am the demo model that is built into the server, so this is all I can do. Set LITELLM_API_BASE and \
         LITELLM_API_KEY to work with a real model.",
        first(result.trim(), LONGEST_OUTPUT)
    )
}

/// Cuts a text into the pieces in which it is streamed.
fn say(text: String, pause: Duration) -> Plan {
    let characters: Vec<char> = text.chars().collect();
    let pieces = characters
        .chunks(12)
        .map(|piece| piece.iter().collect())
        .collect();
    Plan::Say { pieces, pause }
}

fn first(text: &str, characters: usize) -> String {
    text.chars().take(characters).collect()
}

fn last(text: &str, characters: usize) -> String {
    text.chars()
        .skip(text.chars().count().saturating_sub(characters))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(text: &str) -> Plan {
        let tool = json!({ "type": "function", "function": { "name": "bash", "parameters": {
            "type": "object", "properties": { "command": { "type": "string" } } } } });
        plan(&json!({ "messages": [{ "role": "user", "content": text }], "tools": [tool] }))
    }

    fn said(plan: &Plan) -> String {
        match plan {
            Plan::Say { pieces, .. } => pieces.concat(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn keywords_steer() {
        assert_eq!(asked("please FAIL 503 now"), Plan::Fail(503));
        let call = Plan::Call {
            tool: "bash".to_owned(),
            arguments: json!({ "command": "echo hi" }),
        };
        assert_eq!(asked("do\nTOOL: echo hi \nthanks"), call);
        assert!(matches!(asked("SLOW 3"), Plan::Say { pieces, pause } if pieces.len() == 3 && pause == SLOW));
        assert_eq!(said(&asked("PING one")), "PONG PING one");
        let reminder = "<system-reminder>FAIL 500</system-reminder>PING";
        assert_eq!(said(&asked(reminder)), "PONG PING");
    }

    #[test]
    fn a_request_is_noted_without_being_run() {
        let Plan::Call { arguments, .. } = asked("it's $(reboot) `now`\nmore") else {
            panic!("no call")
        };
        let command = arguments["command"].as_str().unwrap();
        assert!(
            command.starts_with(r"printf -- '- %s\n' 'it'\''s $(reboot) `now`' >> lap-notes.md"),
            "{command}"
        );
    }

    #[test]
    fn a_tool_result_is_told() {
        let messages = |request: &str| {
            json!({ "messages": [
                { "role": "user", "content": [{ "type": "text", "text": request }] },
                { "role": "assistant", "content": null, "tool_calls": [] },
                { "role": "tool", "tool_call_id": "c", "content": "README.md" },
            ] })
        };
        assert_eq!(said(&plan(&messages("TOOL: ls"))), "TOOL_RESULT_SEEN: README.md");
        assert!(said(&plan(&messages("what is here?"))).contains("README.md"));
    }

    #[test]
    fn arguments_fit_the_tool() {
        let properties = json!({ "command": { "type": "array" } });
        assert_eq!(
            arguments(&properties, "ls"),
            json!({ "command": ["bash", "-lc", "ls"] })
        );
        assert_eq!(arguments(&json!({ "cmd": {} }), "ls"), json!({ "cmd": "ls" }));
    }
}
