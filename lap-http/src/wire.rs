//! Requests and answers as they travel. Nouns of the engine have no wire form of their own, so every question of
//! compatibility with the original system is answered in this folder.

pub(crate) mod agent;
pub(crate) mod attachment;
pub(crate) mod diagnosis;
pub(crate) mod frame;
pub(crate) mod message;
pub(crate) mod opencode;
pub(crate) mod session;
pub(crate) mod timeline;
pub(crate) mod turn;

use serde::{Deserialize, Deserializer};

/// Tells an absent field (`None`) from a `null` (`Some(None)`).
fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<Option<Option<T>>, D::Error> {
    Option::<T>::deserialize(from).map(Some)
}

/// A URL without the user and password that may stand before its host.
pub(crate) fn without_credentials(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return url.to_owned();
    };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    match rest[..end].rfind('@') {
        Some(at) => format!("{scheme}://{}", &rest[at + 1..]),
        None => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_cut_out_of_urls() {
        for (url, shown) in [
            ("https://github.com/o/r.git", "https://github.com/o/r.git"),
            ("https://x:tok@github.com/o/r", "https://github.com/o/r"),
            ("https://tok@github.com", "https://github.com"),
            ("https://h/p@q", "https://h/p@q"),
            ("git@github.com:o/r.git", "git@github.com:o/r.git"),
        ] {
            assert_eq!(without_credentials(url), shown);
        }
    }
}
