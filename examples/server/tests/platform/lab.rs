//! The real programs of the lab: opencode, and a LiteLLM proxy in front of the test model, one for all tests of this
//! binary. `cargo xtask test` installs them and says where they are.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, OnceLock, mpsc};
use std::time::{Duration, Instant};

use crate::client::Client;
use crate::model::Model;
use crate::server::Server;

/// The key that only the vault and the proxy know.
pub(crate) const GATEWAY_KEY: &str = "sk-gateway-master-key";
/// The key that only the proxy and the model know.
pub(crate) const UPSTREAM_KEY: &str = "sk-upstream-secret";
/// A cold start of the proxy on a machine that compiles something else.
const START: Duration = Duration::from_secs(180);

const OPENCODE: &str = "LAP_TEST_OPENCODE";
const LITELLM: &str = "LAP_TEST_LITELLM";

/// A program that the test command installed. Without it the test passes with a remark, except in CI, where a test that
/// does not run must be red.
#[expect(
    clippy::print_stderr,
    reason = "whoever runs the tests must see what was not tested"
)]
fn program(variable: &str) -> Option<PathBuf> {
    let path = std::env::var_os(variable)
        .map(PathBuf::from)
        .filter(|path| path.is_file());
    if path.is_none() {
        assert!(
            std::env::var_os("CI").is_none(),
            "{variable} names no program; `cargo xtask test` installs it"
        );
        eprintln!("NOT TESTED: {variable} names no program; `cargo xtask test` installs it");
    }
    path
}

/// Where opencode is.
pub(crate) struct Opencode {
    /// The folder of the program, for the search path of sandboxes.
    folder: PathBuf,
}

impl Opencode {
    /// `None` where it is not installed.
    pub(crate) fn find() -> Option<Self> {
        let folder = program(OPENCODE)?.parent()?.to_owned();
        Some(Self { folder })
    }

    /// The search path with opencode in front.
    pub(crate) fn path(&self) -> String {
        path_with(&self.folder)
    }

    /// What sandboxes behind walls must see: the folder that npm installed into, because the program is a link into it.
    pub(crate) fn visible(&self) -> String {
        let installed = self
            .folder
            .parent()
            .and_then(Path::parent)
            .unwrap_or(&self.folder);
        installed.display().to_string()
    }
}

/// The search path with a folder in front.
fn path_with(folder: &Path) -> String {
    let rest = std::env::var_os("PATH").unwrap_or_default();
    let all = std::iter::once(folder.to_owned()).chain(std::env::split_paths(&rest));
    std::env::join_paths(all).unwrap().into_string().unwrap()
}

/// The proxy and the model behind it.
pub(crate) struct Lab {
    pub(crate) model: Model,
    pub(crate) gateway: String,
    opencode: Opencode,
    /// While its input is open the proxy lives. The system closes it with this process.
    _alive: Mutex<std::process::Child>,
}

impl Lab {
    /// Starts it at the first call. `None` where the programs are not installed.
    pub(crate) fn get() -> Option<&'static Self> {
        static LAB: OnceLock<Option<Lab>> = OnceLock::new();
        LAB.get_or_init(|| {
            let (opencode, litellm) = (Opencode::find(), program(LITELLM));
            Some(Self::start(opencode?, &litellm?))
        })
        .as_ref()
    }

    fn start(opencode: Opencode, litellm: &Path) -> Self {
        let model = model_of_its_own();
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let folder = tempfile::tempdir().unwrap().keep();
        let config = include_str!("../lab/litellm.yaml").replace("MODEL_BASE", &model.base);
        std::fs::write(folder.join("config.yaml"), config).unwrap();
        let script = "\"$0\" --config config.yaml --host 127.0.0.1 --port \"$1\" --num_workers 1 >log 2>&1 & \
                      cat >/dev/null; kill $!; wait; rm -rf \"$PWD\"";
        let child = Command::new("sh")
            .args(["-c", script])
            .arg(litellm)
            .arg(port.to_string())
            .current_dir(&folder)
            .env("LITELLM_LOCAL_MODEL_COST_MAP", "True")
            .env("LITELLM_TELEMETRY", "False")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let gateway = format!("http://127.0.0.1:{port}");
        let deadline = Instant::now() + START;
        while !answers(&gateway) {
            let log = || std::fs::read_to_string(folder.join("log")).unwrap_or_default();
            assert!(Instant::now() < deadline, "the proxy does not start:\n{}", log());
            std::thread::sleep(Duration::from_millis(200));
        }
        Self {
            model,
            gateway,
            opencode,
            _alive: Mutex::new(child),
        }
    }

    /// A server whose sandboxes find opencode and whose gateway is the proxy.
    pub(crate) async fn server(&self, more: &[(&str, &str)]) -> Server {
        let (path, visible) = (self.opencode.path(), self.opencode.visible());
        let mut environment = vec![
            ("PATH", path.as_str()),
            ("LAP_ISOLATION_VISIBLE", visible.as_str()),
            ("LITELLM_API_BASE", self.gateway.as_str()),
            ("LITELLM_API_KEY", GATEWAY_KEY),
        ];
        environment.extend_from_slice(more);
        Server::start_with(&environment).await
    }
}

/// The model outlives the runtime of the test that comes first.
fn model_of_its_own() -> Model {
    let (say, said) = mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async move {
            say.send(Model::start().await).unwrap();
            std::future::pending::<()>().await;
        });
    });
    said.recv().unwrap()
}

fn answers(gateway: &str) -> bool {
    std::thread::scope(|scope| {
        let ask = scope.spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let client = Client::new(gateway, "");
                let request = http::Request::get(format!("{gateway}/health/liveliness"));
                let request = request.body(http_body_util::Full::default()).unwrap();
                let answer = tokio::time::timeout(Duration::from_secs(5), client.try_send(request)).await;
                matches!(answer, Ok(Ok((200, _))))
            })
        });
        ask.join().unwrap()
    })
}
