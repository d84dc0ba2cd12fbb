//! The laws every vault obeys, on the one a server embeds.

use std::sync::Arc;
use std::time::Duration;

use http::Request;
use lap_conformance::{VaultUnderTest, vault_suite};
use lap_core::seal::Sealer;
use lap_core::vault::GatewayAccess;
use lap_vault::relay::Limits;
use lap_vault::{LocalVault, LocalVaultConfig};

use crate::support::{Upstream, body, client};

async fn embedded() -> VaultUnderTest {
    let upstream = Upstream::start().await;
    let config = LocalVaultConfig {
        gateway: upstream.base(),
        gateway_roots: None,
    };
    let limits = Limits {
        grant: Duration::from_millis(50),
        ..Limits::default()
    };
    let vault = LocalVault::in_process(config, None, Sealer::plaintext(), limits)
        .await
        .unwrap();
    VaultUnderTest::new(Arc::new(vault), move |access: GatewayAccess| {
        let upstream = Arc::clone(&upstream);
        async move {
            let call = Request::post(format!("{}/v1/chat/completions", access.base))
                .header("authorization", format!("Bearer {}", access.key))
                .body(body("{}"))
                .unwrap();
            let answer = client().request(call).await.unwrap();
            let seen = upstream.seen().pop().filter(|_| answer.status() == 200)?;
            let key = seen.headers["authorization"].to_str().unwrap();
            Some(key.strip_prefix("Bearer ").unwrap().to_owned())
        }
    })
}

vault_suite!(embedded());
