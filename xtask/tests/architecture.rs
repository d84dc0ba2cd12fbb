//! The architecture as a test: which crate may depend on which. A new arrow is a visible change to this table.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// Crate, and the crates of this workspace that it may use in what it ships.
const ARROWS: &[(&str, &[&str])] = &[
    ("lap-core", &[]),
    ("lap-conformance", &["lap-core"]),
    ("lap-store-sqlite", &["lap-core"]),
    ("lap-store-postgres", &["lap-core"]),
    ("lap-harness", &["lap-core"]),
    ("lap-sandboxd", &["lap-core", "lap-harness"]),
    ("lap-local", &["lap-core"]),
    ("lap-vault", &["lap-core"]),
    ("lap-http", &["lap-core"]),
    ("embed-axum", &["lap-core", "lap-http"]),
    (
        "lap-server",
        &[
            "lap-core",
            "lap-store-sqlite",
            "lap-store-postgres",
            "lap-harness",
            "lap-sandboxd",
            "lap-local",
            "lap-vault",
            "lap-http",
        ],
    ),
    (
        "lap-benches",
        &[
            "lap-core",
            "lap-store-sqlite",
            "lap-vault",
            "lap-harness",
            "lap-sandboxd",
            "lap-local",
            "lap-http",
        ],
    ),
    ("xtask", &[]),
];

/// Tests may also use the published laws, and the server's tests everything.
const FOR_TESTS: &[&str] = &["lap-conformance"];

/// What the core must never see, even through others.
const FOREIGN_TO_CORE: &[&str] = &["sqlx", "kube", "hyper", "axum", "http", "rustix", "chrono"];

/// Never anywhere: a second TLS stack or a second implementation of cryptography.
const BANNED: &[&str] = &[
    "openssl",
    "openssl-sys",
    "native-tls",
    "aws-lc-rs",
    "aws-lc-sys",
    "reqwest",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn metadata() -> Value {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--all-features"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).unwrap()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

fn members(metadata: &Value) -> BTreeSet<String> {
    let ids: BTreeSet<_> = metadata["workspace_members"]
        .as_array()
        .unwrap()
        .iter()
        .map(text)
        .collect();
    let packages = metadata["packages"].as_array().unwrap();
    let ours = packages
        .iter()
        .filter(|package| ids.contains(text(&package["id"])));
    ours.map(|package| package["name"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn crates_depend_only_along_the_arrows() {
    let metadata = metadata();
    let members = members(&metadata);
    let table: BTreeMap<_, _> = ARROWS.iter().copied().collect();
    assert_eq!(
        members,
        table.keys().map(|name| (*name).to_owned()).collect(),
        "a crate without a row in ARROWS"
    );
    for package in metadata["packages"].as_array().unwrap() {
        let name = package["name"].as_str().unwrap();
        let Some(allowed) = table.get(name) else { continue };
        for dependency in package["dependencies"].as_array().unwrap() {
            let target = dependency["name"].as_str().unwrap();
            let for_tests = dependency["kind"] == "dev";
            let fine = !members.contains(target)
                || allowed.contains(&target)
                || (for_tests
                    && (FOR_TESTS.contains(&target)
                        || name == "lap-http"
                        || name == "lap-vault"
                        || name == "lap-local"));
            assert!(fine, "{name} must not depend on {target}");
        }
    }
}

#[test]
fn the_core_knows_no_database_no_http_and_no_process() {
    let metadata = metadata();
    let packages = metadata["packages"].as_array().unwrap();
    let name_of: BTreeMap<&str, &str> = packages
        .iter()
        .map(|p| (text(&p["id"]), text(&p["name"])))
        .collect();
    let nodes = metadata["resolve"]["nodes"].as_array().unwrap();
    let edges: BTreeMap<&str, Vec<&str>> = nodes
        .iter()
        .map(|node| {
            let ships = node["deps"].as_array().unwrap().iter().filter(|dep| {
                dep["dep_kinds"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .any(|kind| kind["kind"].is_null())
            });
            (
                text(&node["id"]),
                ships.map(|dep| text(&dep["pkg"])).collect::<Vec<_>>(),
            )
        })
        .collect();
    let core = packages
        .iter()
        .find(|package| package["name"] == "lap-core")
        .unwrap();
    let (mut seen, mut open) = (BTreeSet::new(), vec![text(&core["id"])]);
    while let Some(id) = open.pop() {
        if seen.insert(id) {
            let name = name_of[id];
            assert!(!FOREIGN_TO_CORE.contains(&name), "lap-core depends on {name}");
            open.extend(&edges[id]);
        }
    }
}

#[test]
fn nothing_brings_a_second_tls_stack() {
    let lock = std::fs::read_to_string(root().join("Cargo.lock")).unwrap();
    for banned in BANNED {
        assert!(
            !lock.contains(&format!("name = \"{banned}\"\n")),
            "{banned} is in Cargo.lock"
        );
    }
}

#[test]
fn every_crate_takes_the_workspace_lints_and_says_what_it_is() {
    for package in metadata()["packages"].as_array().unwrap() {
        let path = PathBuf::from(package["manifest_path"].as_str().unwrap());
        if !path.starts_with(root()) {
            continue;
        }
        let manifest = std::fs::read_to_string(&path).unwrap();
        assert!(
            manifest.contains("[lints]\nworkspace = true"),
            "{} takes no lints",
            path.display()
        );
        assert!(
            package["description"].is_string(),
            "{} has no description",
            path.display()
        );
        assert_eq!(package["license"], "MIT", "{}", path.display());
    }
}

#[test]
fn libraries_read_no_environment() {
    for (name, _) in ARROWS {
        if matches!(*name, "lap-server" | "xtask" | "lap-benches" | "embed-axum") {
            continue;
        }
        let mut open = vec![root().join(name).join("src")];
        while let Some(path) = open.pop() {
            if path.is_dir() {
                open.extend(
                    std::fs::read_dir(&path)
                        .unwrap()
                        .map(|entry| entry.unwrap().path()),
                );
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                let mut code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
                assert!(
                    !code.any(|line| line.contains("env::var")),
                    "{} reads the environment",
                    path.display()
                );
            }
        }
    }
}
