use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::HeaderValue;

use super::SecretForms;

/// What stands in place of each byte of a secret. The length stays, so that a content length stays true.
const MASK: u8 = b'*';

/// Masks a secret in a stream, whatever the borders of its chunks.
///
/// Held back is only a tail that could be the beginning of a secret, so an event that ends in a line break
/// passes at once. Chunks without a hit pass without a copy.
#[derive(Debug)]
pub struct Scrubber {
    forms: Arc<SecretForms>,
    /// Bytes not yet passed on, as they arrived.
    held: BytesMut,
    /// How many of the held bytes belong to an occurrence that began before them.
    masked: usize,
}

impl Scrubber {
    /// A scrubber at the beginning of a stream.
    pub fn new(forms: Arc<SecretForms>) -> Self {
        Self {
            forms,
            held: BytesMut::new(),
            masked: 0,
        }
    }

    /// Takes the next chunk and returns what can be passed on, which may be nothing.
    pub fn push(&mut self, chunk: Bytes) -> Bytes {
        if self.held.is_empty() {
            if !self.forms.occur_in(&chunk) {
                let undecided = self.forms.undecided_from(&chunk);
                self.held.extend_from_slice(&chunk[undecided..]);
                return chunk.slice(..undecided);
            }
            self.held.extend_from_slice(&chunk);
        } else {
            self.held.extend_from_slice(&chunk);
        }
        let undecided = self.forms.undecided_from(&self.held);
        self.pass(undecided)
    }

    /// How many bytes are held back.
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// Ends the stream and returns the rest.
    pub fn finish(&mut self) -> Bytes {
        self.pass(self.held.len())
    }

    /// Passes on the bytes before `undecided`. No occurrence that begins there can still grow, because its
    /// beginning would then be undecided itself.
    fn pass(&mut self, undecided: usize) -> Bytes {
        let grown = 0..std::mem::take(&mut self.masked);
        let found: Vec<_> = self
            .forms
            .occurrences(&self.held)
            .filter(|range| range.start < undecided)
            .collect();
        let rest = self.held.split_off(undecided);
        let mut ready = std::mem::replace(&mut self.held, rest);
        for range in std::iter::once(grown).chain(found) {
            ready[range.start.min(undecided)..range.end.min(undecided)].fill(MASK);
            self.masked = self.masked.max(range.end.saturating_sub(undecided));
        }
        ready.freeze()
    }
}

/// Masks a secret in a header value; `None` when it does not occur.
pub fn mask_header(forms: &SecretForms, value: &HeaderValue) -> Option<HeaderValue> {
    let bytes = value.as_bytes();
    if !forms.occur_in(bytes) {
        return None;
    }
    let mut masked = bytes.to_vec();
    for range in forms.occurrences(bytes) {
        masked[range].fill(MASK);
    }
    // Masking puts visible ASCII in place of visible bytes, so the value stays valid.
    Some(HeaderValue::from_bytes(&masked).unwrap_or_else(|_| HeaderValue::from_static("*")))
}

#[cfg(test)]
mod tests {
    use lap_core::secret::Secret;
    use proptest::prelude::*;

    use super::*;

    /// Every byte that any occurrence in the whole stream covers is masked.
    fn masked_whole(forms: &[Vec<u8>], data: &[u8]) -> Vec<u8> {
        let mut out = data.to_vec();
        for form in forms.iter().filter(|form| !form.is_empty()) {
            for at in 0..data.len().saturating_sub(form.len() - 1) {
                if data[at..].starts_with(form) {
                    out[at..at + form.len()].fill(MASK);
                }
            }
        }
        out
    }

    fn masked_in_chunks(forms: &Arc<SecretForms>, data: &[u8], cuts: &[usize]) -> Vec<u8> {
        let mut scrubber = Scrubber::new(Arc::clone(forms));
        let mut out = Vec::new();
        let mut rest = data;
        for cut in cuts {
            let (chunk, after) = rest.split_at((*cut).min(rest.len()));
            out.extend_from_slice(&scrubber.push(Bytes::copy_from_slice(chunk)));
            rest = after;
        }
        out.extend_from_slice(&scrubber.push(Bytes::copy_from_slice(rest)));
        out.extend_from_slice(&scrubber.finish());
        out
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn any_chunking_masks_the_same_bytes(
            forms in proptest::collection::vec(proptest::collection::vec(prop_oneof![Just(b'a'), Just(b'b')], 1..6), 1..4),
            data in proptest::collection::vec(prop_oneof![Just(b'a'), Just(b'b'), Just(b'c')], 0..60),
            cuts in proptest::collection::vec(0usize..7, 0..20),
        ) {
            let expected = masked_whole(&forms, &data);
            let forms = Arc::new(SecretForms::of(forms));
            prop_assert_eq!(masked_in_chunks(&forms, &data, &cuts), expected);
        }

        #[test]
        fn a_real_secret_never_passes(
            before in "[ -~]{0,50}", after in "[ -~]{0,50}", cuts in proptest::collection::vec(0usize..40, 0..12),
        ) {
            let secret = "sk-canary/0123456789+abcdef";
            let forms = Arc::new(SecretForms::new(&Secret::new(secret)));
            let data = format!("{before}{secret}{after}");
            let out = masked_in_chunks(&forms, data.as_bytes(), &cuts);
            prop_assert_eq!(out.len(), data.len());
            prop_assert!(!String::from_utf8(out).unwrap().contains(secret));
        }
    }

    #[test]
    fn an_event_passes_at_once_and_without_a_copy() {
        let mut scrubber = Scrubber::new(Arc::new(SecretForms::new(&Secret::new("sk-canary-0123"))));
        let event = Bytes::from_static(b"data: {\"delta\":\"hello sk-can\"}\n\n");
        let out = scrubber.push(event.clone());
        assert_eq!((out.len(), out.as_ptr()), (event.len(), event.as_ptr()));
    }

    #[test]
    fn only_a_possible_beginning_is_held_back() {
        let mut scrubber = Scrubber::new(Arc::new(SecretForms::new(&Secret::new("sk-canary-0123"))));
        assert_eq!(scrubber.push(Bytes::from_static(b"the key sk-can")), "the key ");
        assert_eq!(
            scrubber.push(Bytes::from_static(b"dy is sweet")),
            "sk-candy is sweet"
        );
        assert_eq!(scrubber.push(Bytes::from_static(b" sk-canary")), " ");
        assert_eq!(scrubber.push(Bytes::from_static(b"-0123!")), "**************!");
        assert_eq!(scrubber.finish(), "");
    }

    #[test]
    fn header_values_are_masked() {
        let forms = SecretForms::new(&Secret::new("sk-canary-0123"));
        let value = HeaderValue::from_static("wrong key: sk-canary-0123.");
        assert_eq!(mask_header(&forms, &value).unwrap(), "wrong key: **************.");
        assert!(mask_header(&forms, &HeaderValue::from_static("fine")).is_none());
    }
}
