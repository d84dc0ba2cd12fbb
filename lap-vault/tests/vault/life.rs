//! How a vault process ends, is replaced, and what may stand in its place.

use std::process::Command;
use std::time::Duration;

use lap_core::seal::Sealer;
use lap_core::vault::Vault as _;
use lap_vault::relay::Limits;
use lap_vault::{LocalVault, LocalVaultConfig};
use tokio::io::AsyncReadExt as _;

use crate::process::{Folder, attach, gone, host, pid, process, stat, works};
use crate::support::{CANARY, Upstream, fresh_sandbox, key_grant};

#[tokio::test]
async fn an_embedded_vault_keeps_port_and_stubs_in_its_folder() {
    let (folder, upstream) = (Folder::new(), Upstream::start().await);
    let start = || {
        LocalVault::in_process(
            LocalVaultConfig {
                gateway: upstream.base(),
                gateway_roots: None,
            },
            Some(folder.path()),
            Sealer::plaintext(),
            Limits::default(),
        )
    };
    let sandbox = fresh_sandbox();
    let first = start().await.unwrap();
    let attachment = first.attach(&attach(sandbox)).await.unwrap();
    drop(first);
    let second = start().await.unwrap();
    assert_eq!(second.attach(&attach(sandbox)).await.unwrap(), attachment);
    second.grant(sandbox, &[key_grant()]).await.unwrap();
    assert!(works(&attachment).await);
    assert_eq!(second.receipts(sandbox, 0, 9).await.unwrap().len(), 1);
    second.detach(sandbox).await.unwrap();
    second.detach(sandbox).await.unwrap();
    assert!(!works(&attachment).await);
    let error = second.grant(sandbox, &[key_grant()]).await.unwrap_err();
    assert_eq!(error.kind(), lap_core::ErrorKind::NotFound);
}

#[tokio::test]
async fn it_ends_with_its_folder() {
    let (folder, upstream) = (Folder::new(), Upstream::start().await);
    let _host = host(&folder.path(), &upstream).await;
    let old = pid(&folder.path()).unwrap();
    drop(_host);
    std::fs::remove_dir_all(folder.path()).unwrap();
    gone(old).await;
}

#[tokio::test]
async fn it_ends_when_nobody_needs_it() {
    let (folder, upstream) = (Folder::new(), Upstream::start().await);
    let mut config = process(&folder.path());
    config.idle_exit = Some(Duration::from_millis(200));
    let gateway = LocalVaultConfig {
        gateway: upstream.base(),
        gateway_roots: None,
    };
    let host = LocalVault::process(gateway, config).await.unwrap();
    let sandbox = fresh_sandbox();
    host.attach(&attach(sandbox)).await.unwrap();
    let old = pid(&folder.path()).unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(stat(old).is_some(), "a server is there");
    host.detach(sandbox).await.unwrap();
    drop(host);
    gone(old).await;
    assert!(pid(&folder.path()).is_none(), "it tidies up");
}

#[tokio::test]
async fn a_vault_of_another_version_is_replaced_and_stubs_stay() {
    let (folder, upstream) = (Folder::new(), Upstream::start().await);
    let first = host(&folder.path(), &upstream).await;
    let sandbox = fresh_sandbox();
    let attachment = first.attach(&attach(sandbox)).await.unwrap();
    drop(first);
    let path = folder.path().join("vault.json");
    let text = std::fs::read_to_string(&path).unwrap();
    let old = pid(&folder.path()).unwrap();
    std::fs::write(&path, text.replace("\"protocol\":1", "\"protocol\":0")).unwrap();
    let second = host(&folder.path(), &upstream).await;
    gone(old).await;
    assert_eq!(second.attach(&attach(sandbox)).await.unwrap(), attachment);
}

#[tokio::test]
async fn an_impostor_on_the_socket_learns_nothing() {
    let (folder, upstream) = (Folder::new(), Upstream::start().await);
    std::fs::create_dir_all(folder.path()).unwrap();
    let listener = tokio::net::UnixListener::bind(folder.path().join("control.sock")).unwrap();
    let mut sleeper = Command::new("sleep").arg("600").spawn().unwrap();
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", sleeper.id())).unwrap();
    let started = stat
        .rsplit_once(')')
        .unwrap()
        .1
        .split_whitespace()
        .nth(19)
        .unwrap()
        .to_owned();
    let file = format!(
        r#"{{"pid":{},"started":{started},"boot":"b","port":1,"protocol":1,"proof":"x"}}"#,
        sleeper.id()
    );
    std::fs::write(folder.path().join("vault.json"), &file).unwrap();
    let heard = std::sync::Arc::new(std::sync::Mutex::new(String::new()));
    let hearing = std::sync::Arc::clone(&heard);
    let impostor = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut buffer = [0; 4096];
            while let Ok(size @ 1..) = stream.read(&mut buffer).await {
                hearing
                    .lock()
                    .unwrap()
                    .push_str(&String::from_utf8_lossy(&buffer[..size]));
                let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{file}", file.len());
                tokio::io::AsyncWriteExt::write_all(&mut stream, answer.as_bytes())
                    .await
                    .unwrap();
            }
        }
    });
    let host = host(&folder.path(), &upstream).await;
    let sandbox = fresh_sandbox();
    host.attach(&attach(sandbox)).await.unwrap();
    host.grant(sandbox, &[key_grant()]).await.unwrap();
    impostor.abort();
    let heard = heard.lock().unwrap().clone();
    assert!(heard.contains("/v1/identity"), "{heard}");
    assert!(
        !heard.to_lowercase().contains("authorization") && !heard.contains(CANARY),
        "{heard}"
    );
    sleeper.wait().unwrap();
}

#[tokio::test]
async fn a_program_that_is_no_vault_is_reported_with_its_words() {
    let (folder, upstream) = (Folder::new(), Upstream::start().await);
    let mut config = process(&folder.path());
    config.command.program = "/bin/sh".into();
    config.command.args = ["-c", "echo no vault here >&2; exit 3"].map(Into::into).to_vec();
    let gateway = LocalVaultConfig {
        gateway: upstream.base(),
        gateway_roots: None,
    };
    let error = LocalVault::process(gateway, config).await.unwrap_err();
    assert!(error.message().contains("no vault here"), "{error}");
}
