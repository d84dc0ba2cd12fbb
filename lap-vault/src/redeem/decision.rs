use http::Method;

use super::{Binding, GatewayBase, Position, Reason, Route, route};

/// What the table knows about who presents a credential.
#[derive(Debug, Clone, Copy)]
pub enum Identity<'a> {
    /// Nothing was presented, or not unmistakably.
    None(Reason),
    /// What was presented belongs to no attached sandbox.
    Unknown,
    /// A stub of an attached sandbox. The binding is known once the value was granted.
    Known(Option<&'a Binding>),
}

/// What happens to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict<'a> {
    /// The stub is swapped in this position and the request goes to this route of the gateway.
    Swap(Position, Route<'a>),
    /// Nothing reaches the gateway.
    Refuse(Reason),
}

/// The redemption decision of the relay.
///
/// Identity comes first, so that a client without one learns nothing about the policy. With `gateway` or
/// the binding still unknown the verdict is provisional: the relay waits for them and asks again.
pub fn decide<'a>(
    identity: Identity<'_>,
    gateway: Option<&GatewayBase>,
    method: &Method,
    target: &'a str,
    position: Position,
) -> Verdict<'a> {
    let binding = match identity {
        Identity::None(reason) => return Verdict::Refuse(reason),
        Identity::Unknown => return Verdict::Refuse(Reason::UnknownStub),
        Identity::Known(binding) => binding,
    };
    let route = match route(method, target) {
        Ok(route) => route,
        Err(reason) => return Verdict::Refuse(reason),
    };
    match (gateway, binding) {
        (Some(gateway), Some(binding)) if !binding.covers(gateway, method, &gateway.path(&route)) => {
            Verdict::Refuse(Reason::NotBound)
        }
        _ => Verdict::Swap(position, route),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::HostRule;
    use super::*;

    fn verdict(identity: Identity<'_>, target: &'static str) -> Verdict<'static> {
        let gateway = GatewayBase::parse("https://gateway.example.com").unwrap();
        decide(identity, Some(&gateway), &Method::POST, target, Position::ApiKey)
    }

    #[test]
    fn identity_is_judged_before_policy() {
        for target in ["/v1/messages", "/key/generate", "/../x"] {
            assert_eq!(
                verdict(Identity::Unknown, target),
                Verdict::Refuse(Reason::UnknownStub)
            );
            assert_eq!(
                verdict(Identity::None(Reason::NoCredential), target),
                Verdict::Refuse(Reason::NoCredential)
            );
        }
        let known = Identity::Known(None);
        assert!(matches!(
            verdict(known, "/v1/messages"),
            Verdict::Swap(Position::ApiKey, _)
        ));
        assert_eq!(
            verdict(known, "/key/generate"),
            Verdict::Refuse(Reason::PathNotAllowed)
        );
        assert_eq!(verdict(known, "/v1/../key"), Verdict::Refuse(Reason::BadTarget));
    }

    proptest! {
        #[test]
        fn nothing_is_swapped_outside_a_binding(host in "[a-z]{1,8}(\\.[a-z]{1,8}){0,2}", target in "/[ -~]{0,30}") {
            let gateway = GatewayBase::parse("https://gateway.example.com").unwrap();
            let binding = Binding { hosts: vec![HostRule::parse(&host).unwrap()], ..Binding::default() };
            for target in ["/v1/messages", target.as_str()] {
                let verdict = decide(
                    Identity::Known(Some(&binding)), Some(&gateway), &Method::POST, target, Position::Authorization,
                );
                if host != "gateway.example.com" {
                    prop_assert!(!matches!(verdict, Verdict::Swap(..)));
                }
            }
        }
    }
}
