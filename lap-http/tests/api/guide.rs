//! The guide in `docs/http-api.md` shows routes and codes that exist.

use serde_json::Value;

const GUIDE: &str = include_str!("../../../docs/http-api.md");
const BASE: &str = "/api/v1/managed_agents";

/// `METHOD path` of every command and of every route in the text.
fn shown() -> Vec<String> {
    let mut routes = Vec::new();
    for line in GUIDE.lines() {
        if let Some(rest) = line.strip_prefix("curl ") {
            routes.push(called(rest));
            continue;
        }
        for code in line.split('`').skip(1).step_by(2) {
            if let Some(("GET" | "POST", path)) =
                code.split_once(' ').filter(|(_, path)| path.starts_with('/'))
            {
                routes.push(format!("{} {path}", code.split(' ').next().unwrap()));
            }
        }
    }
    routes
}

fn called(command: &str) -> String {
    let given = command
        .split_once("-X ")
        .map(|(_, rest)| rest.split(' ').next().unwrap());
    let method = given.unwrap_or(if command.contains(" -d ") { "POST" } else { "GET" });
    let path = command.split_once("$LAP").expect("every command names a path").1;
    let path = path.split([' ', '?', '"']).next().unwrap();
    let path = path
        .replace("$AGENT", "{agent_id}")
        .replace("$SESSION", "{session_id}")
        .replace("$TURN", "{turn_id}");
    format!("{method} {BASE}{path}")
}

#[test]
fn every_route_of_the_guide_exists() {
    let document: Value = serde_json::from_str(&lap_http::openapi_json()).unwrap();
    let shown = shown();
    assert!(shown.len() > 30, "{shown:?}");
    for route in shown {
        let (method, path) = route.split_once(' ').unwrap();
        let operation = &document["paths"][path][method.to_lowercase()];
        assert!(operation.is_object(), "{route} is not a route");
    }
}

#[test]
fn every_code_of_the_sources_is_explained() {
    let sources = concat!(
        include_str!("../../src/problem.rs"),
        include_str!("../../src/auth.rs"),
        include_str!("../../src/body.rs"),
        include_str!("../../src/origin.rs"),
        include_str!("../../src/router.rs"),
        include_str!("../../src/messages.rs"),
        include_str!("../../src/sessions.rs"),
        include_str!("../../src/opencode.rs"),
        include_str!("../../src/catalog.rs"),
    );
    // What a status says by itself, and failures that are ours.
    let plain = [
        "forbidden",
        "unsupported",
        "corrupt",
        "internal",
        "method_not_allowed",
    ];
    let mut found = 0;
    for rest in sources.split("StatusCode::").skip(1) {
        let Some((_, code)) = rest.split_once(", \"") else {
            continue;
        };
        let code = code.split('"').next().unwrap();
        let near = rest.find(", \"").is_some_and(|at| at < 40);
        if near && code.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_') {
            found += 1;
            assert!(
                plain.contains(&code) || GUIDE.contains(&format!("`{code}`")),
                "{code} is not explained"
            );
        }
    }
    assert!(found > 20, "{found}");
}
