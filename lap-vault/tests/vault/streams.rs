//! Long exchanges: streams, waiting, leaving, being cut.

use std::sync::atomic::Ordering;
use std::time::Duration;

use http::Request;
use http_body_util::BodyExt as _;
use lap_core::vault::GATEWAY_KEY;
use lap_vault::relay::Limits;
use tokio::io::AsyncWriteExt as _;

use crate::support::{Rig, body, client, eventually, fresh_sandbox, key_grant, refusal};

#[tokio::test]
async fn streams_are_not_buffered() {
    let rig = Rig::start().await;
    let response = client()
        .request(rig.post("steps").body(body("{}")).unwrap())
        .await
        .unwrap();
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let mut answer = response.into_body();
    for step in 0..5 {
        // The next chunk leaves the upstream only after the one before it was read here.
        rig.upstream.steps.add_permits(1);
        let frame = tokio::time::timeout(Duration::from_secs(30), answer.frame())
            .await
            .unwrap()
            .unwrap()
            .unwrap();
        assert_eq!(
            frame.into_data().unwrap(),
            format!("data: {{\"step\":{step}}}\n\n")
        );
    }
}

#[tokio::test]
async fn a_client_that_leaves_reaches_the_upstream() {
    let rig = Rig::start().await;
    let response = client()
        .request(rig.post("steps").body(body("{}")).unwrap())
        .await
        .unwrap();
    rig.upstream.steps.add_permits(1);
    let mut answer = response.into_body();
    answer.frame().await.unwrap().unwrap();
    drop(answer);
    eventually("the stream was dropped", async || {
        rig.upstream.dropped.load(Ordering::SeqCst) == 1
    })
    .await;

    let waiting = tokio::spawn(client().request(rig.post("hang").body(body("{}")).unwrap()));
    eventually("it arrived", async || {
        rig.upstream.arrived.load(Ordering::SeqCst) == 2
    })
    .await;
    waiting.abort();
    eventually("the waiting call was dropped", async || {
        rig.upstream.dropped.load(Ordering::SeqCst) == 2
    })
    .await;
    eventually("both left a receipt", async || {
        let receipts = rig.service.receipts(Some(rig.sandbox), 0, 10);
        receipts
            .iter()
            .filter(|receipt| receipt.reason.as_deref() == Some("client_left"))
            .count()
            == 2
    })
    .await;
}

#[tokio::test]
async fn a_detached_sandbox_is_cut_and_its_stub_is_dead() {
    let rig = Rig::start().await;
    let other = fresh_sandbox();
    let stubs = rig.service.attach(other, &Default::default()).await.unwrap();
    rig.service.grant(other, &[key_grant()]).unwrap();
    let as_other = |mode: &str| {
        Request::post(format!("{}/v1/messages", rig.base))
            .header("x-api-key", &stubs.stubs[GATEWAY_KEY])
            .header("x-mode", mode)
            .body(body("{}"))
            .unwrap()
    };
    let streaming = client().request(as_other("steps")).await.unwrap();
    let waiting = tokio::spawn(client().request(as_other("hang")));
    eventually("both arrived", async || {
        rig.upstream.arrived.load(Ordering::SeqCst) == 2
    })
    .await;
    rig.service.detach(other).await.unwrap();
    let cut = tokio::time::timeout(Duration::from_secs(30), streaming.into_body().collect()).await;
    assert!(cut.unwrap().is_err(), "the running answer is cut");
    assert_eq!(
        refusal(waiting.await.unwrap().unwrap()).await,
        (401, "detached".to_owned())
    );
    let again = client().request(as_other("")).await.unwrap();
    assert_eq!(refusal(again).await, (401, "unknown_stub".to_owned()));
    eventually("the upstream was let go", async || {
        rig.upstream.dropped.load(Ordering::SeqCst) == 2
    })
    .await;
    let mine = client()
        .request(rig.post("").body(body("{}")).unwrap())
        .await
        .unwrap();
    assert_eq!(mine.status(), 200, "the other sandbox goes on");
}

#[tokio::test]
async fn a_client_that_does_not_read_is_cut_too() {
    let rig = Rig::start().await;
    let mut stream = tokio::net::TcpStream::connect(rig.base.trim_start_matches("http://"))
        .await
        .unwrap();
    let head = "POST /v1/messages HTTP/1.1\r\nhost: relay\r\nx-mode: big\r\ncontent-length: 0\r\n";
    stream
        .write_all(format!("{head}x-api-key: {}\r\n\r\n", rig.stub).as_bytes())
        .await
        .unwrap();
    eventually("it was answered", async || rig.upstream.seen().len() == 1).await;
    // From here on nothing is read, so nobody asks the answer's body for more.
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(
        rig.service.receipts(Some(rig.sandbox), 0, 9).is_empty(),
        "it is still going on"
    );
    rig.service.detach(rig.sandbox).await.unwrap();
    eventually("it was cut", async || {
        let receipts = rig.service.receipts(Some(rig.sandbox), 0, 9);
        receipts
            .first()
            .is_some_and(|receipt| receipt.reason.as_deref() == Some("detached"))
    })
    .await;
}

#[tokio::test]
async fn requests_wait_for_the_value_and_then_give_up() {
    let rig = Rig::with(Limits {
        grant: Duration::from_millis(300),
        ..Limits::default()
    })
    .await;
    let late = fresh_sandbox();
    let stubs = rig.service.attach(late, &Default::default()).await.unwrap();
    let request = || {
        Request::get(format!("{}/v1/models", rig.base))
            .header("x-api-key", &stubs.stubs[GATEWAY_KEY])
            .body(body(""))
            .unwrap()
    };
    let response = client().request(request()).await.unwrap();
    assert_eq!(response.headers()["retry-after"], "1");
    assert_eq!(refusal(response).await, (503, "not_granted".to_owned()));

    let rig = Rig::start().await;
    let stubs = rig.service.attach(late, &Default::default()).await.unwrap();
    let request = Request::get(format!("{}/v1/models", rig.base))
        .header("x-api-key", &stubs.stubs[GATEWAY_KEY])
        .body(body(""))
        .unwrap();
    let waiting = tokio::spawn(client().request(request));
    eventually("it waits", async || rig.service.requests() == 1).await;
    rig.service.grant(late, &[key_grant()]).unwrap();
    assert_eq!(waiting.await.unwrap().unwrap().status(), 200);
}
