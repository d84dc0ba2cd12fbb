//! Does the model gateway answer, and does it take the key?

use std::time::{Duration, Instant};

use http::{Request, StatusCode, header};
use http_body_util::Empty;
use hyper::body::Bytes;
use lap_core::secret::Secret;

use super::Finding;
use crate::config::Gateway;

const PATIENCE: Duration = Duration::from_secs(5);
const SUBJECT: &str = "gateway";

pub(super) async fn look(gateway: &Gateway) -> Finding {
    let Gateway::Configured { base, key } = gateway else {
        return Finding::good(
            SUBJECT,
            "the built-in demo model; set LITELLM_API_BASE and LITELLM_API_KEY for a real one",
        );
    };
    let address = format!("{base}/v1/models");
    let started = Instant::now();
    let answer = tokio::time::timeout(PATIENCE, ask(&address, key)).await;
    let took = started.elapsed().as_millis();
    let check_base = "check LITELLM_API_BASE, and that the gateway runs and can be reached from here";
    match answer {
        Err(_) => Finding::bad(
            SUBJECT,
            format!("{address} did not answer within {} s", PATIENCE.as_secs()),
        )
        .advise(check_base),
        Ok(Err(why)) => {
            Finding::bad(SUBJECT, format!("{address} cannot be reached: {why}")).advise(check_base)
        }
        Ok(Ok(status)) => judge(&address, status, took),
    }
}

fn judge(address: &str, status: StatusCode, took: u128) -> Finding {
    let text = format!("{address} answers {status} in {took} ms");
    match status {
        _ if status.is_success() => Finding::good(SUBJECT, text),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            Finding::bad(SUBJECT, text).advise("the gateway does not take the key: check LITELLM_API_KEY")
        }
        StatusCode::NOT_FOUND => Finding::bad(SUBJECT, text)
            .advise("that is no OpenAI-compatible gateway: check LITELLM_API_BASE (without /v1)"),
        _ => Finding::bad(SUBJECT, text).advise("look into the log of the gateway"),
    }
}

/// The status of the list of models. Errors never hold the key: it travels in a header only.
async fn ask(address: &str, key: &Secret) -> Result<StatusCode, String> {
    let mut bearer = http::HeaderValue::try_from(format!("Bearer {}", key.expose()))
        .map_err(|_| "the key does not fit into a header".to_owned())?;
    bearer.set_sensitive(true);
    let request = Request::get(address)
        .header(header::AUTHORIZATION, bearer)
        .body(Empty::<Bytes>::new());
    let request = request.map_err(|_| "the address cannot be used".to_owned())?;
    let client = crate::catalog::client().map_err(|error| error.to_string())?;
    match client.request(request).await {
        Ok(response) => Ok(response.status()),
        Err(error) => Err(root_cause(&error)),
    }
}

/// The innermost cause is the one that helps: connection refused, unknown host, bad certificate.
fn root_cause(error: &(dyn std::error::Error + 'static)) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}
