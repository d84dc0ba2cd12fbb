use std::os::unix::fs::symlink;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use lap_core::id::SandboxId;
use uuid::Uuid;

use super::*;
use crate::processes::Reach;

struct Place {
    folder: tempfile::TempDir,
    tools: Toolbox,
    sandbox: SandboxId,
}

fn place() -> Place {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("workspace");
    std::fs::create_dir(&root).unwrap();
    std::fs::write(folder.path().join("secret"), "canary").unwrap();
    symlink(folder.path().join("secret"), root.join("link")).unwrap();
    symlink("../secret", root.join("relative-link")).unwrap();
    symlink("..", root.join("up")).unwrap();
    let entropy = lap_core::id::SystemEntropy::new();
    let sandbox = SandboxId::fresh(&entropy, lap_core::time::Timestamp::from_unix_millis(1));
    let processes = Arc::new(Processes::new(sandbox, Reach::Marked));
    let environment = BTreeMap::from([
        ("PATH".to_owned(), "/usr/local/bin:/usr/bin:/bin".to_owned()),
        ("LAP_SANDBOX_ID".to_owned(), sandbox.to_string()),
    ]);
    let tools = Toolbox::new(&root.canonicalize().unwrap(), processes, environment).unwrap();
    Place {
        folder,
        tools,
        sandbox,
    }
}

async fn call(place: &Place, name: &str, input: Value) -> Result<String, String> {
    let id = Uuid::from_u128(1).to_string();
    place
        .tools
        .call(name, &id, &input, &|_| {})
        .await
        .map(|done| done.output)
}

#[tokio::test]
async fn no_path_leads_out_of_the_workspace() {
    let place = place();
    let absolute = place.folder.path().join("secret").display().to_string();
    let sneaky = place
        .folder
        .path()
        .join("workspace/../secret")
        .display()
        .to_string();
    for path in [
        "../secret",
        "link",
        "relative-link",
        "up/secret",
        "./up/../../secret",
        "/etc/hostname",
        &absolute,
        &sneaky,
    ] {
        for (tool, input) in [
            ("read", json!({"path": path})),
            ("write", json!({"path": path, "content": "broken"})),
            (
                "edit",
                json!({"path": path, "old_string": "canary", "new_string": "broken"}),
            ),
        ] {
            let refused = call(&place, tool, input).await.unwrap_err();
            assert!(
                !refused.contains("canary") && refused.contains("outside"),
                "{tool} {path}: {refused}"
            );
        }
    }
    for path in ["..", "up", "/", "/etc"] {
        call(&place, "list", json!({"path": path})).await.unwrap_err();
    }
    assert_eq!(
        std::fs::read_to_string(place.folder.path().join("secret")).unwrap(),
        "canary"
    );
}

#[tokio::test]
async fn files_are_written_read_edited_and_listed() {
    let place = place();
    call(
        &place,
        "write",
        json!({"path": "src/a.txt", "content": "one\ntwo\ntwo\n"}),
    )
    .await
    .unwrap();
    let absolute = place
        .folder
        .path()
        .canonicalize()
        .unwrap()
        .join("workspace/src/a.txt")
        .display()
        .to_string();
    assert!(
        call(&place, "read", json!({"path": absolute}))
            .await
            .unwrap()
            .contains("     2\ttwo\n")
    );
    let twice = call(
        &place,
        "edit",
        json!({"path": "src/a.txt", "old_string": "two", "new_string": "2"}),
    )
    .await;
    assert!(twice.unwrap_err().contains("2 times"));
    let edit = json!({"path": "src/a.txt", "old_string": "two", "new_string": "2", "replace_all": true});
    call(&place, "edit", edit).await.unwrap();
    let file = place.folder.path().join("workspace/src/a.txt");
    assert_eq!(std::fs::read_to_string(file).unwrap(), "one\n2\n2\n");
    assert!(call(&place, "list", json!({})).await.unwrap().contains("src/\n"));
    assert!(
        call(&place, "read", json!({"path": "src"}))
            .await
            .unwrap_err()
            .contains("folder")
    );
    assert!(
        call(&place, "read", json!({"path": "none"}))
            .await
            .unwrap_err()
            .contains("does not exist")
    );
    assert!(
        call(&place, "read", json!({}))
            .await
            .unwrap_err()
            .contains("path")
    );
}

#[tokio::test]
async fn a_pipe_or_binary_file_does_not_hang_the_agent() {
    let place = place();
    call(
        &place,
        "bash",
        json!({"command": "mkfifo pipe; printf 'a\\0b' > binary"}),
    )
    .await
    .unwrap();
    assert!(
        call(&place, "read", json!({"path": "pipe"}))
            .await
            .unwrap_err()
            .contains("regular")
    );
    assert!(
        call(&place, "read", json!({"path": "binary"}))
            .await
            .unwrap_err()
            .contains("text")
    );
}

#[tokio::test]
async fn output_is_bounded_for_every_tool() {
    let place = place();
    let make = "yes abcdefghi | head -c 2000000 > large; head -c 100000 /dev/zero | tr '\\0' x > wide; \
                mkdir many; cd many; for n in $(seq 3000); do : > file-with-a-long-name-$n; done";
    call(&place, "bash", json!({"command": make})).await.unwrap();
    for (tool, input) in [
        ("bash", json!({"command": "cat large"})),
        ("read", json!({"path": "large", "limit": 1_000_000})),
        ("read", json!({"path": "wide"})),
        ("list", json!({"path": "many"})),
    ] {
        let output = call(&place, tool, input.clone()).await.unwrap();
        assert!(output.len() <= MAX_OUTPUT, "{tool} {input}: {}", output.len());
    }
    let ends = call(
        &place,
        "bash",
        json!({"command": "echo first; cat large; echo last"}),
    )
    .await
    .unwrap();
    assert!(ends.starts_with("first\n") && ends.ends_with("last\n") && ends.contains("left out"));
}

#[tokio::test]
async fn a_command_tells_its_exit_and_both_streams_in_order() {
    let place = place();
    let output = call(
        &place,
        "bash",
        json!({"command": "echo a; echo b >&2; echo c; exit 3"}),
    )
    .await
    .unwrap();
    assert_eq!(output, "a\nb\nc\n[exit status: 3]");
    assert_eq!(
        call(&place, "bash", json!({"command": "true"})).await.unwrap(),
        "(no output)"
    );
    assert_eq!(
        call(&place, "bash", json!({"command": "cat"})).await.unwrap(),
        "(no output)"
    );
}

#[tokio::test]
async fn a_command_that_takes_too_long_is_killed_with_all_it_started() {
    let place = place();
    let begun = Instant::now();
    // setsid leaves the process group, so only the call's marker finds it.
    let command = "setsid sleep 300 & sleep 300 & echo started; sleep 300";
    let output = call(&place, "bash", json!({"command": command, "timeout_ms": 500}))
        .await
        .unwrap();
    assert!(output.starts_with("started\n[killed"), "{output}");
    assert!(begun.elapsed() < Duration::from_secs(60));
    gone(&place).await;
}

#[tokio::test]
async fn dropping_a_call_kills_all_it_started() {
    let place = place();
    let seen = Mutex::new(String::new());
    let input = json!({"command": "setsid sleep 300 & sleep 300 & echo ready; sleep 300"});
    let id = Uuid::from_u128(2).to_string();
    let progress = |text: &str| *seen.lock().unwrap() = text.to_owned();
    let running = place.tools.call("bash", &id, &input, &progress);
    let started = async {
        while !seen.lock().unwrap().contains("ready") {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::select! {
        _ = running => panic!("the command ended"),
        () = started => {}
    }
    gone(&place).await;
}

#[tokio::test]
async fn a_background_process_outlives_its_call_but_not_the_sandbox() {
    let place = place();
    let begun = Instant::now();
    let output = call(&place, "bash", json!({"command": "sleep 300 & echo started"}))
        .await
        .unwrap();
    assert_eq!(output, "started\n");
    assert!(begun.elapsed() < Duration::from_secs(60));
    assert_eq!(survivors(&place), 1);
    assert!(place.tools.processes.end_all().await);
    gone(&place).await;
}

/// Everything that carries the sandbox's marker, found in another way than the code under test does.
fn survivors(place: &Place) -> usize {
    let marker = format!("LAP_SANDBOX_ID={}", place.sandbox);
    let alive = std::process::Command::new("sh")
        .args([
            "-c",
            "grep -lzxF -- \"$0\" /proc/[0-9]*/environ 2>/dev/null | wc -l",
            &marker,
        ])
        .output()
        .unwrap();
    String::from_utf8(alive.stdout).unwrap().trim().parse().unwrap()
}

async fn gone(place: &Place) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while survivors(place) > 0 {
        assert!(Instant::now() < deadline, "processes survive");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
