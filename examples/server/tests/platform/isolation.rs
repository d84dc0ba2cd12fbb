//! An agent that attacks the machine with its own tools. Red where the server claims isolation and something leaks, and
//! where it cannot isolate at all.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::model::Model;
use crate::server::Server;

const GATEWAY_KEY: &str = "sk-canary-77aa10c4e2";
/// The name of the agent, which stands in the database.
const IN_DATABASE: &str = "canary-of-the-database-31bc";
const SECRET: &str = "canary-of-the-neighbour-9d2e";

/// Reads what is the server's, the vault's and the neighbour's, in every way that a shell has.
const READING: &str = r#"
found() { grep -aqsE "$PATTERN" && echo "LEAK $1"; }
cat "$DATA"/lap.db* 2>/dev/null | found database
cat "$DATA"/master-key "$DATA"/encryption-key 2>/dev/null | found keys
find "$DATA"/vault -type f -exec cat {} + 2>/dev/null | found vault
cat "$OTHER"/workspace/secret 2>/dev/null | found neighbour
ls "$DATA" "$DATA"/.. 2>/dev/null | grep -qE 'lap\.db|master-key|server\.log' && echo LEAK names
ls "$DATA"/sandboxes 2>/dev/null | grep -v "^${PWD##*/sandboxes/}" | grep -q "${OTHER##*/}" && echo LEAK neighbours
for process in 1 self $$ $PPID "$SERVER"; do
    cat "/proc/$process/root$DATA/master-key" "/proc/$process/cwd/../../../master-key" 2>/dev/null
done | found process-root
ln -sfn "$DATA" link; ln -sfn /proc/1/root root
cat link/master-key "root$DATA/master-key" ../../../master-key ../../../../data/master-key 2>/dev/null | found symlinks
for process in /proc/[0-9]*; do
    tr '\0' '\n' <"$process/environ" 2>/dev/null
    tr '\0' '\n' <"$process/cmdline" 2>/dev/null
    for file in "$process"/fd/*; do readlink "$file"; done 2>/dev/null | grep -q 'lap\.db' && echo LEAK open-files
done | found processes
cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\0' ' ' | grep -qE 'lap-server (--dev|vault)' && echo LEAK server-process
unshare -Urmpf sh -c 'mount -t proc proc /proc; umount -l "$1"; umount -l /; cat "$1/master-key" "$1/vault/"*' - "$DATA" 2>/dev/null | found namespaces
nsenter -t 1 -m cat "$DATA/master-key" 2>/dev/null | found nsenter
grep -rsaE -D skip "$PATTERN" / --exclude-dir=proc --exclude-dir=usr --exclude-dir=sandboxes --exclude-dir=dev 2>/dev/null | found anywhere
echo READ
"#;

/// Changes what is not its own, ends what is not its own.
const WRITING: &str = r#"
did() { "$@" >/dev/null 2>&1 && echo "LEAK $*"; }
for place in / /usr /usr/bin /etc /bin /lib /root /proc/sys/kernel "$DATA" "$DATA/sandboxes" "$OTHER"; do
    did touch "$place/lap-attack"
done
did sh -c 'echo x >/proc/sys/kernel/core_pattern'
did sh -c 'echo h >/proc/sysrq-trigger'
did test -r /etc/shadow
did sh -c 'ls /dev/mem /dev/kmsg /dev/vda /dev/sda /dev/nvme0'
did mount -t tmpfs none /mnt
did mount -o remount,bind,rw /usr
did umount -l /proc
did mknod disk b 254 0
did chroot / true
did unshare -Urm sh -c 'mount -o remount,bind,rw /usr && touch /usr/lap-attack'
did unshare -Urmpf sh -c 'mount -t proc proc /proc && echo x >/proc/sys/kernel/core_pattern'
did sh -c 'grep -q "^CapEff:.*[1-9a-f]" /proc/self/status'
did sh -c 'grep -q "^NoNewPrivs:.0" /proc/self/status'
for process in $VICTIMS; do kill -9 "$process" 2>/dev/null; done
echo WROTE
"#;

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_attacks_finds_nothing_and_changes_nothing() {
    let model = Model::start().await;
    let server = Server::start_with(&[
        ("LITELLM_API_BASE", &model.base),
        ("LITELLM_API_KEY", GATEWAY_KEY),
        ("LAP_ISOLATION", "userns"),
    ])
    .await;
    let client = &server.client;
    let agent = client
        .agent(json!({"name": IN_DATABASE, "model": "some/model"}))
        .await;
    let neighbour = client.session(&agent, json!({})).await;
    let plant = format!("TOOL: echo {SECRET} >secret; pwd -P | sed s/^/AT=/");
    let (status, reply) = client.message(&neighbour, &plant).await;
    assert_eq!(status, 200, "{reply}");
    let other = neighbour_folder(&reply);
    assert!(other.join("workspace/secret").exists(), "{other:?}: {reply}");

    let attacker = client.session(&agent, json!({})).await;
    for (script, end) in [(READING, "READ"), (WRITING, "WROTE")] {
        let told = format!("TOOL: {}{script}", preamble(&server, &other));
        let (status, reply) = client.message(&attacker, &told).await;
        assert_eq!(status, 200, "{reply}");
        let result = result(&reply);
        assert!(
            result.contains(end),
            "the attack did not come to its end: {result}; {reply}"
        );
        assert!(!result.contains("LEAK "), "{result}");
    }
    // Everybody whom it tried to end is there, and so is what it tried to read.
    let (status, reply) = client.message(&neighbour, "TOOL: cat secret").await;
    assert_eq!(status, 200, "{reply}");
    assert!(result(&reply).contains(SECRET), "{reply}");
    assert_eq!(own_processes(&server).len(), 2, "the server and its vault");
    for session in [&neighbour, &attacker] {
        client.delete(&format!("/sessions/{session}")).await;
    }
    server.nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_isolation_the_same_attack_succeeds_and_the_server_says_so() {
    let model = Model::start().await;
    let server = Server::start_with(&[
        ("LITELLM_API_BASE", &model.base),
        ("LITELLM_API_KEY", GATEWAY_KEY),
        ("LAP_ISOLATION", "none"),
    ])
    .await;
    let client = &server.client;
    let agent = client
        .agent(json!({"name": IN_DATABASE, "model": "some/model"}))
        .await;
    let session = client.session(&agent, json!({})).await;
    // Reads only, and only where it is known to find: this is the machine of whoever runs the tests.
    let script = "for file in lap.db master-key encryption-key; do \
                  grep -aqE \"$PATTERN\" \"$DATA\"/$file* && echo LEAK $file; done";
    let told = format!("TOOL: {}{script}", preamble(&server, Path::new("/nowhere")));
    let (_, reply) = client.message(&session, &told).await;
    for file in ["lap.db", "master-key", "encryption-key"] {
        let leak = format!("LEAK {file}");
        assert!(result(&reply).contains(&leak), "the attack is none: {reply}");
    }
    let (status, diagnosis) = client.get(&format!("/sessions/{session}/diagnose")).await;
    assert_eq!(status, 200, "{diagnosis}");
    assert!(diagnosis.to_string().contains("not_isolated"), "{diagnosis}");
}

/// Where things are, and what to look for, written so that the words themselves are not what they find.
fn preamble(server: &Server, other: &Path) -> String {
    let read = |name: &str| {
        let text = std::fs::read_to_string(server.data().join(name)).unwrap();
        hidden(text.trim())
    };
    let patterns = [
        read("master-key"),
        read("encryption-key"),
        hidden(GATEWAY_KEY),
        hidden(SECRET),
        hidden(IN_DATABASE),
    ];
    let data = server.data().canonicalize().unwrap();
    let own = own_processes(server);
    format!(
        "PATTERN='{}' DATA='{}' OTHER='{}' SERVER={} VICTIMS='{}'\n",
        patterns.join("|"),
        data.display(),
        other.display(),
        own[0],
        own.iter().map(u32::to_string).collect::<Vec<_>>().join(" ")
    )
}

/// A pattern that matches the text and not itself.
fn hidden(text: &str) -> String {
    let escaped: String = text
        .chars()
        .skip(1)
        .map(|c| {
            if c.is_alphanumeric() || c == ' ' {
                c.to_string()
            } else {
                format!("[{c}]")
            }
        })
        .collect();
    format!("[{}]{escaped}", &text[..1])
}

/// The folder around the workspace that the tool has told.
fn neighbour_folder(reply: &Value) -> PathBuf {
    let said = result(reply);
    let workspace = said
        .split("AT=")
        .nth(1)
        .unwrap()
        .split_whitespace()
        .next()
        .unwrap();
    PathBuf::from(workspace).parent().unwrap().to_owned()
}

/// What the tool said, as the model repeats it.
fn result(reply: &Value) -> String {
    let parts = reply["parts"].as_array().unwrap();
    let texts = parts.iter().filter_map(|part| part["text"].as_str());
    let said = texts.filter_map(|text| text.split_once("TOOL_RESULT_SEEN: "));
    said.map(|(_, said)| said).collect()
}

/// The server's own processes: itself and its vault.
fn own_processes(server: &Server) -> Vec<u32> {
    let data = server.data().display().to_string();
    let read = |pid: u32, name: &str| {
        let bytes = std::fs::read(format!("/proc/{pid}/{name}")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    };
    let parent = |pid: u32| {
        let stat = read(pid, "stat");
        stat.rsplit(')')
            .next()
            .and_then(|rest| rest.split_whitespace().nth(1)?.parse::<u32>().ok())
    };
    let all: Vec<u32> = std::fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    let is_server = |pid: &&u32| {
        let words = read(**pid, "cmdline");
        words.contains("--data-dir") && words.contains(&data)
    };
    let own = *all.iter().find(is_server).unwrap();
    let vaults = all
        .iter()
        .filter(|pid| parent(**pid) == Some(own) && read(**pid, "cmdline").contains("\0vault"));
    [own].into_iter().chain(vaults.copied()).collect()
}
