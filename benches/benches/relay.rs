//! What the model relay adds to a model call: the same gateway, asked directly and through the relay.

#![expect(clippy::unwrap_used, reason = "a benchmark that cannot go on ends")]

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use http::Request;
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use lap_vault::rehearsal::Rehearsal;

/// A conversation of some length, and an answer of as many chunks as a short text has.
const BODY_BYTES: usize = 10_000;
const CHUNKS: usize = 40;

fn relay(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let chunk = Bytes::from_static(b"data: {\"choices\":[{\"delta\":{\"content\":\"twelve bytes\"}}]}\n\n");
    let rehearsal = runtime.block_on(Rehearsal::start(vec![chunk; CHUNKS])).unwrap();
    let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let body = Bytes::from(vec![b'x'; BODY_BYTES]);
    let mut group = criterion.benchmark_group("model_call");
    let ways = [
        ("direct", &rehearsal.direct, rehearsal.key.expose()),
        ("relay", &rehearsal.relay, rehearsal.stub.as_str()),
    ];
    for (name, base, key) in ways {
        group.bench_function(BenchmarkId::from_parameter(name), |bencher| {
            bencher.to_async(&runtime).iter(|| async {
                let request = Request::post(format!("{base}/v1/chat/completions"))
                    .header("authorization", format!("Bearer {key}"))
                    .header("content-type", "application/json")
                    .body(Full::from(body.clone()))
                    .unwrap();
                let response = client.request(request).await.unwrap();
                assert_eq!(response.status(), 200);
                response.into_body().collect().await.unwrap()
            });
        });
    }
    group.finish();
}

criterion_group!(benches, relay);
criterion_main!(benches);
