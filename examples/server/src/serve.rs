//! The server: bind, assemble, serve, drain.

use std::process::ExitCode;
use std::time::Duration;

use lap_core::error::chain;
use lap_http::{HttpOptions, MasterKey};
use metrics_exporter_prometheus::PrometheusBuilder;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::assemble::{Assembled, assemble};
use crate::catalog::Catalog;
use crate::command::{VERSION, print};
use crate::config::Config;
use crate::listen::{self, Limits};
use crate::{banner, logging};

/// How long handlers may take to give back their work. They need milliseconds.
const DRAIN: Duration = Duration::from_secs(20);
/// How long connections may take to end after that.
const LINGER: Duration = Duration::from_secs(5);

/// Serves until SIGTERM or SIGINT; a second signal ends at once.
pub(crate) async fn run(config: Config) -> ExitCode {
    logging::start(&config.log);
    match serve(config).await {
        Ok(code) => code,
        Err(reason) => {
            print::error(format!("lap-server: {reason}"));
            ExitCode::FAILURE
        }
    }
}

async fn serve(config: Config) -> Result<ExitCode, String> {
    // The port comes first: if it is taken, nothing has been touched.
    let listener = bind(&config).await?;
    let port = listener.local_addr().map_err(|error| error.to_string())?.port();
    let config = config.bound_to(port);
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    if config.linear.is_some() {
        tracing::warn!(
            "LINEAR_CLIENT_ID is set, but this build has no Linear integration; its routes answer 404"
        );
    }
    let metrics = PrometheusBuilder::new()
        .install_recorder()
        .map_err(|error| error.to_string())?;
    let assembled = assemble(&config).await.map_err(|error| chain(&error))?;
    let mut options = http_options(&config);
    options.catalog = Some(std::sync::Arc::new(Catalog::of(&config.gateway)?));
    options.metrics = Some(std::sync::Arc::new(move || metrics.render()));
    let app = lap_http::router(assembled.engine.clone(), options);
    let shutdown = CancellationToken::new();
    let limits = Limits::of_this_process();
    let serving = tokio::spawn(listen::serve(listener, app, limits, shutdown.clone()));
    banner::print(&config, assembled.isolation);
    let mut terminate = signal(SignalKind::terminate()).map_err(|error| error.to_string())?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|error| error.to_string())?;
    let mut next_signal = async || {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    next_signal().await;
    tracing::info!("shutting down; sandboxes go on and the next start takes them over");
    tokio::select! {
        () = drain(&assembled, shutdown, serving) => {}
        () = next_signal() => tracing::warn!("shutting down at once"),
    }
    Ok(ExitCode::SUCCESS)
}

fn http_options(config: &Config) -> HttpOptions {
    let mut options = HttpOptions::new(MasterKey::new(config.master_key.clone()));
    options.base_url.clone_from(&config.base_url.url);
    options.preinstalled_repo.clone_from(&config.preinstalled_repo);
    options.ui_username.clone_from(&config.ui_username);
    options.trusted_proxies.clone_from(&config.trusted_proxies);
    options.build = VERSION.to_owned();
    if config.is_dev {
        // On a private address the browser of the person next to it is the way in.
        let public = url::Url::parse(&config.base_url.url).ok();
        let public = public
            .as_ref()
            .and_then(url::Url::host_str)
            .map(|host| host.trim_matches(['[', ']']).to_owned());
        let own = ["localhost", "127.0.0.1", "::1", &config.listen.host].map(str::to_owned);
        options.allowed_hosts = own.into_iter().chain(public).collect();
    }
    options
}

async fn bind(config: &Config) -> Result<TcpListener, String> {
    let (host, port) = (config.listen.host.as_str(), config.listen.port);
    TcpListener::bind((host, port)).await.map_err(|error| {
        let what = match error.kind() {
            std::io::ErrorKind::AddrInUse => "another program listens there; stop it or choose another PORT",
            std::io::ErrorKind::PermissionDenied => "this user may not; choose a PORT above 1023",
            _ => "check PORT and BIND_HOST",
        };
        format!("cannot listen on {host}:{port}: {error}: {what}")
    })
}

async fn drain(assembled: &Assembled, shutdown: CancellationToken, serving: tokio::task::JoinHandle<()>) {
    shutdown.cancel();
    assembled.engine.drain(DRAIN).await;
    if tokio::time::timeout(LINGER, serving).await.is_err() {
        tracing::info!("some connections were still open");
    }
}
