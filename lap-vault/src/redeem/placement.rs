use http::HeaderMap;
use http::header::{AUTHORIZATION, HeaderName, HeaderValue};

use super::{Reason, STUB_MARKER};

/// The header positions in which a stub is swapped. This is an allow-list: every other position is a way to
/// have the secret echoed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Position {
    /// `Authorization: Bearer <stub>`.
    Authorization,
    /// `x-api-key: <stub>`.
    ApiKey,
    /// `x-litellm-api-key: <stub>` or `x-litellm-api-key: Bearer <stub>`.
    LitellmApiKey,
}

impl Position {
    const ALL: [Self; 3] = [Self::Authorization, Self::ApiKey, Self::LitellmApiKey];

    /// The header's name.
    pub const fn header(self) -> HeaderName {
        match self {
            Self::Authorization => AUTHORIZATION,
            Self::ApiKey => HeaderName::from_static("x-api-key"),
            Self::LitellmApiKey => HeaderName::from_static("x-litellm-api-key"),
        }
    }

    /// The name in receipts.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Authorization => "authorization",
            Self::ApiKey => "x-api-key",
            Self::LitellmApiKey => "x-litellm-api-key",
        }
    }
}

/// A credential as a request presents it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Presented<'a> {
    /// In which header.
    pub position: Position,
    /// The value followed the scheme `Bearer`.
    pub bearer: bool,
    /// What was presented.
    pub token: &'a str,
}

impl Presented<'_> {
    /// The same header with `value` in place of what was presented, marked as sensitive.
    ///
    /// # Errors
    /// When the value has bytes that a header cannot carry; grants refuse such values.
    pub fn rewritten(
        &self,
        value: &str,
    ) -> Result<(HeaderName, HeaderValue), http::header::InvalidHeaderValue> {
        let mut value = if self.bearer {
            HeaderValue::try_from(format!("Bearer {value}"))
        } else {
            HeaderValue::from_str(value)
        }?;
        value.set_sensitive(true);
        Ok((self.position.header(), value))
    }
}

impl std::fmt::Debug for Presented<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Presented")
            .field("position", &self.position)
            .finish_non_exhaustive()
    }
}

/// Finds the credential of a request.
///
/// Clients send placeholders beside the real position, so something that carries the stub marker wins over
/// something that does not; among equals the order of [`Position`] decides.
///
/// # Errors
/// `NoCredential` when no position carries a value; `AmbiguousCredential` when two different stubs are
/// presented or one position is filled twice.
pub fn present(headers: &HeaderMap) -> Result<Presented<'_>, Reason> {
    let mut found: Option<Presented<'_>> = None;
    for position in Position::ALL {
        let mut values = headers.get_all(position.header()).iter();
        let (Some(value), second) = (values.next(), values.next()) else {
            continue;
        };
        if second.is_some() {
            return Err(Reason::AmbiguousCredential);
        }
        let Some(presented) = read(position, value) else {
            continue;
        };
        let is_stub = |presented: &Presented<'_>| presented.token.starts_with(STUB_MARKER);
        match &found {
            None => found = Some(presented),
            Some(first) if !is_stub(&presented) || first.token == presented.token => {}
            Some(first) if is_stub(first) => return Err(Reason::AmbiguousCredential),
            Some(_) => found = Some(presented),
        }
    }
    found.ok_or(Reason::NoCredential)
}

fn read(position: Position, value: &HeaderValue) -> Option<Presented<'_>> {
    let text = value.to_str().ok()?.trim();
    let after_scheme = text
        .split_once(' ')
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, token)| token.trim_start());
    let (bearer, token) = match (position, after_scheme) {
        (Position::Authorization, None) => return None,
        (Position::Authorization | Position::LitellmApiKey, Some(token)) => (true, token),
        (Position::ApiKey | Position::LitellmApiKey, _) => (false, text),
    };
    (!token.is_empty()).then_some(Presented {
        position,
        bearer,
        token,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect()
    }

    #[test]
    fn each_position_is_read_and_written_back_in_its_own_form() {
        for (name, value, written) in [
            ("authorization", "Bearer stub_A", "Bearer sk-real"),
            ("authorization", "bearer  stub_A", "Bearer sk-real"),
            ("x-api-key", "stub_A", "sk-real"),
            ("x-litellm-api-key", "stub_A", "sk-real"),
            ("x-litellm-api-key", "Bearer stub_A", "Bearer sk-real"),
        ] {
            let headers = headers(&[(name, value)]);
            let presented = present(&headers).unwrap();
            assert_eq!(presented.token, "stub_A");
            let (header, value) = presented.rewritten("sk-real").unwrap();
            assert_eq!((header.as_str(), value.to_str().unwrap()), (name, written));
            assert!(value.is_sensitive());
        }
    }

    #[test]
    fn a_stub_wins_over_a_placeholder_and_two_stubs_are_refused() {
        let both = headers(&[("authorization", "Bearer placeholder"), ("x-api-key", "stub_A")]);
        assert_eq!(present(&both).unwrap().position, Position::ApiKey);
        let same = headers(&[("authorization", "Bearer stub_A"), ("x-api-key", "stub_A")]);
        assert_eq!(present(&same).unwrap().position, Position::Authorization);
        let two = headers(&[("authorization", "Bearer stub_A"), ("x-api-key", "stub_B")]);
        assert_eq!(present(&two), Err(Reason::AmbiguousCredential));
        let twice = headers(&[("x-api-key", "stub_A"), ("x-api-key", "stub_A")]);
        assert_eq!(present(&twice), Err(Reason::AmbiguousCredential));
    }

    #[test]
    fn other_positions_are_not_read() {
        for (name, value) in [
            ("authorization", "Basic c3R1Yl9B"),
            ("authorization", "stub_A"),
            ("authorization", "Bearer "),
            ("cookie", "key=stub_A"),
            ("user-agent", "stub_A"),
            ("api-key", "stub_A"),
        ] {
            assert_eq!(
                present(&headers(&[(name, value)])),
                Err(Reason::NoCredential),
                "{name}: {value}"
            );
        }
    }
}
