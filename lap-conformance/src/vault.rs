//! The laws of a vault, one public function each.
//!
//! A law panics when it is broken. Its first line of documentation is the law.

use std::any::Any;
use std::collections::BTreeSet;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use lap_core::ErrorKind;
use lap_core::id::{SandboxId, SeededEntropy};
use lap_core::opening::Grant;
use lap_core::secret::Secret;
use lap_core::time::Timestamp;
use lap_core::vault::{Attach, Attachment, GATEWAY_KEY, GatewayAccess, Vault};

const CANARY: &str = "sk-canary-4711";

type Redeem = dyn Fn(GatewayAccess) -> Pin<Box<dyn Future<Output = Option<String>> + Send>> + Send + Sync;

/// A vault to which nothing is attached, and the way to use a stub.
pub struct VaultUnderTest {
    vault: Arc<dyn Vault>,
    redeem: Box<Redeem>,
    kept: Vec<Box<dyn Any + Send + Sync>>,
}

impl VaultUnderTest {
    /// `redeem` does what a sandbox does: it calls the model gateway by this access. It gives the key that the gateway
    /// saw, or `None` when the call was refused.
    pub fn new<F>(vault: Arc<dyn Vault>, redeem: impl Fn(GatewayAccess) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Option<String>> + Send + 'static,
    {
        let redeem = move |access| -> Pin<Box<dyn Future<Output = Option<String>> + Send>> {
            Box::pin(redeem(access))
        };
        Self {
            vault,
            redeem: Box::new(redeem),
            kept: Vec::new(),
        }
    }

    /// Keeps something as long as the vault is used, for example its temporary folder.
    #[must_use]
    pub fn keeping(mut self, thing: impl Any + Send + Sync) -> Self {
        self.kept.push(Box::new(thing));
        self
    }

    async fn attach(&self, sandbox: SandboxId) -> Attachment {
        self.vault
            .attach(&order(sandbox))
            .await
            .expect("the vault attaches")
    }

    async fn grant(&self, sandbox: SandboxId, name: &str, value: &str) {
        self.vault
            .grant(sandbox, &[grant(name, value)])
            .await
            .expect("the vault takes the grant");
    }
}

impl fmt::Debug for VaultUnderTest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VaultUnderTest")
            .field("vault", &self.vault)
            .finish_non_exhaustive()
    }
}

fn sandboxes() -> [SandboxId; 2] {
    let entropy = SeededEntropy::new(11);
    let now = Timestamp::from_unix_millis(1_767_225_600_000);
    [SandboxId::fresh(&entropy, now), SandboxId::fresh(&entropy, now)]
}

fn order(sandbox: SandboxId) -> Attach {
    let secrets = BTreeSet::from(["GITHUB_TOKEN".to_owned(), "OTHER_TOKEN".to_owned()]);
    Attach {
        sandbox,
        secrets,
        allow_out: Vec::new(),
        deny_out: Vec::new(),
    }
}

fn grant(name: &str, value: &str) -> Grant {
    Grant {
        name: name.to_owned(),
        value: Secret::new(value),
        // The vault itself binds the gateway's key to the gateway.
        hosts: if name == GATEWAY_KEY {
            Vec::new()
        } else {
            vec!["api.example.com".to_owned()]
        },
    }
}

/// The same sandbox gets the same stubs, one for every name and one for the gateway.
pub async fn an_attachment_is_stable(subject: &VaultUnderTest) {
    let [sandbox, _] = sandboxes();
    let first = subject.attach(sandbox).await;
    assert_eq!(
        first.env.keys().cloned().collect::<BTreeSet<_>>(),
        order(sandbox).secrets
    );
    let stubs: BTreeSet<_> = first.env.values().chain([&first.gateway.key]).collect();
    assert_eq!(stubs.len(), 3, "each has a stub of its own");
    assert!(stubs.iter().all(|stub| !stub.is_empty()) && !first.gateway.base.is_empty());
    assert_eq!(subject.attach(sandbox).await, first);
}

/// Different sandboxes have different stubs for everything.
pub async fn sandboxes_share_no_stub(subject: &VaultUnderTest) {
    let [one, other] = sandboxes();
    let (one, other) = (subject.attach(one).await, subject.attach(other).await);
    let stubs = |attachment: &Attachment| {
        attachment
            .env
            .values()
            .chain([&attachment.gateway.key])
            .cloned()
            .collect::<BTreeSet<_>>()
    };
    assert!(stubs(&one).is_disjoint(&stubs(&other)), "{one:?} and {other:?}");
}

/// An attachment shows no real value, before and after values were granted.
pub async fn an_attachment_shows_no_real_value(subject: &VaultUnderTest) {
    let [sandbox, _] = sandboxes();
    let before = subject.attach(sandbox).await;
    for name in ["GITHUB_TOKEN", GATEWAY_KEY] {
        subject.grant(sandbox, name, CANARY).await;
    }
    let after = subject.attach(sandbox).await;
    assert_eq!(after, before, "a grant changes no stub");
    assert!(!format!("{after:?}").contains(CANARY));
    assert!(
        !format!("{:?}", subject.vault).contains(CANARY),
        "and neither does the vault"
    );
}

/// A granted key is what the gateway sees, and a newer grant replaces it.
pub async fn a_granted_key_reaches_the_gateway(subject: &VaultUnderTest) {
    let [sandbox, _] = sandboxes();
    let access = subject.attach(sandbox).await.gateway;
    for value in [CANARY, "sk-canary-4712"] {
        subject.grant(sandbox, GATEWAY_KEY, value).await;
        assert_eq!((subject.redeem)(access.clone()).await.as_deref(), Some(value));
    }
}

/// A stub stands for its own sandbox's value, and an invented one for nothing.
pub async fn a_stub_is_worth_its_own_value_only(subject: &VaultUnderTest) {
    let [one, other] = sandboxes();
    let (first, second) = (
        subject.attach(one).await.gateway,
        subject.attach(other).await.gateway,
    );
    subject.grant(one, GATEWAY_KEY, CANARY).await;
    subject.grant(other, GATEWAY_KEY, "sk-other").await;
    assert_eq!((subject.redeem)(first.clone()).await.as_deref(), Some(CANARY));
    assert_eq!((subject.redeem)(second).await.as_deref(), Some("sk-other"));
    let mut invented = first.clone();
    invented.key.push('x');
    assert_eq!((subject.redeem)(invented).await, None);
    let nothing = GatewayAccess {
        key: String::new(),
        ..first
    };
    assert_eq!((subject.redeem)(nothing).await, None);
}

/// After a detachment the sandbox's stubs are dead and other sandboxes' are not; a repetition is fine.
pub async fn a_detached_stub_is_dead(subject: &VaultUnderTest) {
    let [one, other] = sandboxes();
    let (dead, alive) = (
        subject.attach(one).await.gateway,
        subject.attach(other).await.gateway,
    );
    subject.grant(one, GATEWAY_KEY, CANARY).await;
    subject.grant(other, GATEWAY_KEY, "sk-other").await;
    for _ in 0..2 {
        subject.vault.detach(one).await.unwrap();
        assert_eq!((subject.redeem)(dead.clone()).await, None);
    }
    assert_eq!((subject.redeem)(alive).await.as_deref(), Some("sk-other"));
}

/// A grant needs an attached sandbox.
pub async fn a_grant_needs_an_attachment(subject: &VaultUnderTest) {
    let [unknown, detached] = sandboxes();
    subject.attach(detached).await;
    subject.vault.detach(detached).await.unwrap();
    for sandbox in [unknown, detached] {
        let refused = subject.vault.grant(sandbox, &[grant(GATEWAY_KEY, CANARY)]).await;
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::NotFound);
    }
    subject
        .vault
        .detach(unknown)
        .await
        .expect("a detachment of what is not attached is fine");
    assert_eq!(
        subject.vault.receipts(unknown, 0, 10).await.unwrap(),
        [],
        "and nothing is known about it"
    );
}

#[doc(hidden)]
#[macro_export]
macro_rules! __vault_laws {
    ($callback:ident $($make:expr)?) => {
        $crate::$callback! {
            $($make)?;
            vault: an_attachment_is_stable,
                sandboxes_share_no_stub,
                an_attachment_shows_no_real_value,
                a_granted_key_reaches_the_gateway,
                a_stub_is_worth_its_own_value_only,
                a_detached_stub_is_dead,
                a_grant_needs_an_attachment;
        }
    };
}

crate::__vault_laws! { __vault_list }

/// One named test per law of [`Vault`](lap_core::vault::Vault), in the module where it stands.
///
/// The argument is an async expression that gives a [`VaultUnderTest`](crate::VaultUnderTest) to which nothing is
/// attached; it is evaluated once per law.
#[macro_export]
macro_rules! vault_suite {
    ($make:expr) => {
        $crate::__vault_laws! { __tests $make }
    };
}
