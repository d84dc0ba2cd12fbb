use aho_corasick::AhoCorasick;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use lap_core::secret::Secret;

/// Below this a value is a placeholder such as `none`, and masking it would garble ordinary answers.
const SHORTEST_SECRET: usize = 7;
/// Encoded forms shorter than this occur by chance.
const SHORTEST_FORM: usize = 8;

/// The forms in which an upstream may echo a secret: as it is, in JSON, percent-encoded, in hexadecimal, and
/// in base64 at each of the three alignments.
///
/// Reversed, split or otherwise disguised forms are out of scope: this is the second line of defence. The
/// first is that secrets are placed only where nobody echoes them.
pub struct SecretForms {
    forms: Vec<Vec<u8>>,
    search: Option<AhoCorasick>,
    longest: usize,
    starts: [bool; 256],
}

impl SecretForms {
    /// Prepares the search for one secret.
    pub fn new(secret: &Secret) -> Self {
        let value = secret.expose().as_bytes();
        let mut forms = Vec::new();
        if value.len() >= SHORTEST_SECRET {
            forms.push(value.to_vec());
            forms.extend(
                encoded(secret.expose())
                    .into_iter()
                    .filter(|form| form.len() >= SHORTEST_FORM),
            );
            forms.sort_unstable();
            forms.dedup();
        }
        Self::of(forms)
    }

    /// Searches for exactly these forms.
    pub(super) fn of(forms: Vec<Vec<u8>>) -> Self {
        let forms: Vec<_> = forms.into_iter().filter(|form| !form.is_empty()).collect();
        let mut starts = [false; 256];
        for form in &forms {
            starts[usize::from(form[0])] = true;
        }
        // Building fails only beyond the automaton's limits, which a few short forms never reach.
        let search = if forms.is_empty() {
            None
        } else {
            AhoCorasick::new(&forms).ok()
        };
        let longest = forms.iter().map(Vec::len).max().unwrap_or(0);
        Self {
            forms,
            search,
            longest,
            starts,
        }
    }

    /// Whether any form occurs.
    pub fn occur_in(&self, data: &[u8]) -> bool {
        self.search.as_ref().is_some_and(|search| search.is_match(data))
    }

    /// The ranges of all occurrences, overlapping ones included.
    pub(super) fn occurrences<'a>(
        &'a self,
        data: &'a [u8],
    ) -> impl Iterator<Item = std::ops::Range<usize>> + 'a {
        self.search
            .iter()
            .flat_map(move |search| search.find_overlapping_iter(data))
            .map(|found| found.range())
    }

    /// Where the first form begins that more data could complete; the length of `data` when there is none.
    pub(super) fn undecided_from(&self, data: &[u8]) -> usize {
        let first = data.len().saturating_sub(self.longest.saturating_sub(1));
        (first..data.len())
            .find(|&at| {
                let tail = &data[at..];
                self.starts[usize::from(tail[0])]
                    && self
                        .forms
                        .iter()
                        .any(|form| form.len() > tail.len() && form.starts_with(tail))
            })
            .unwrap_or(data.len())
    }
}

impl std::fmt::Debug for SecretForms {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SecretForms")
            .field("forms", &self.forms.len())
            .finish_non_exhaustive()
    }
}

impl Drop for SecretForms {
    fn drop(&mut self) {
        use zeroize::Zeroize as _;
        self.forms.zeroize();
    }
}

fn encoded(value: &str) -> Vec<Vec<u8>> {
    let mut forms = vec![json(value), percent(value, false), percent(value, true)];
    let hex = |upper: bool| -> Vec<u8> { value.bytes().flat_map(|byte| hex_pair(byte, upper)).collect() };
    forms.extend([hex(false), hex(true)]);
    for alignment in 0..3 {
        let padded: Vec<u8> = std::iter::repeat_n(0, alignment).chain(value.bytes()).collect();
        // Letters that also carry bits of a neighbour differ from echo to echo, so only whole ones count.
        let (from, to) = ((alignment * 8).div_ceil(6), padded.len() * 8 / 6);
        forms.push(STANDARD_NO_PAD.encode(&padded).as_bytes()[from..to].to_vec());
        forms.push(URL_SAFE_NO_PAD.encode(&padded).as_bytes()[from..to].to_vec());
    }
    forms
}

fn json(value: &str) -> Vec<u8> {
    let quoted = serde_json::Value::from(value).to_string().into_bytes();
    quoted[1..quoted.len() - 1].to_vec()
}

fn percent(value: &str, upper: bool) -> Vec<u8> {
    let encode = |byte: u8| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            vec![byte]
        } else {
            std::iter::once(b'%').chain(hex_pair(byte, upper)).collect()
        }
    };
    value.bytes().flat_map(encode).collect()
}

fn hex_pair(byte: u8, upper: bool) -> [u8; 2] {
    let digits = if upper {
        b"0123456789ABCDEF"
    } else {
        b"0123456789abcdef"
    };
    [digits[usize::from(byte >> 4)], digits[usize::from(byte & 15)]]
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::STANDARD;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn placeholders_are_not_searched_for() {
        assert!(!SecretForms::new(&Secret::new("none")).occur_in(b"there are none"));
        assert!(SecretForms::new(&Secret::new("sk-1234")).occur_in(b"key sk-1234 is wrong"));
    }

    proptest! {
        #[test]
        fn every_form_is_recognised_in_any_surroundings(
            secret in "[ -~]{9,40}", before in "[ -~]{0,9}", after in "[ -~]{0,9}",
        ) {
            let forms = SecretForms::new(&Secret::new(secret.clone()));
            let around = format!("{before}{secret}{after}");
            prop_assert!(forms.occur_in(around.as_bytes()));
            prop_assert!(forms.occur_in(STANDARD.encode(&around).as_bytes()));
            prop_assert!(forms.occur_in(URL_SAFE_NO_PAD.encode(&around).as_bytes()));
            let quoted = serde_json::Value::from(around.as_str()).to_string();
            prop_assert!(forms.occur_in(quoted.as_bytes()));
            prop_assert!(forms.occur_in(&percent(&around, true)));
            let hex: Vec<u8> = around.bytes().flat_map(|byte| hex_pair(byte, false)).collect();
            prop_assert!(forms.occur_in(&hex));
        }
    }
}
