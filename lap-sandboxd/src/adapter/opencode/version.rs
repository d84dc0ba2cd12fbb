//! Which versions of opencode this adapter was made for.

/// The oldest version that has every call and event this adapter uses as it uses them.
const OLDEST: [u32; 3] = [1, 18, 0];
/// The first version that nobody has tried.
const UNKNOWN: [u32; 3] = [2, 0, 0];

/// The range, for people.
pub(super) const SUPPORTED: &str = "1.18.0 up to, not including, 2.0.0";

/// What to say about a version, when there is something to say.
pub(super) fn warning(version: &str) -> Option<String> {
    let supported = parse(version).is_some_and(|version| OLDEST <= version && version < UNKNOWN);
    (!supported).then(|| {
        format!("opencode {version} is installed; supported is {SUPPORTED}, so some things may not work")
    })
}

fn parse(version: &str) -> Option<[u32; 3]> {
    let core = version.split(['-', '+']).next()?;
    let mut numbers = core.split('.').map(|number| number.parse().ok());
    Some([numbers.next()??, numbers.next()??, numbers.next()??])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_range_is_half_open() {
        for known in ["1.18.0", "1.18.33", "1.99.0", "1.20.1-beta.2"] {
            assert_eq!(warning(known), None, "{known}");
        }
        for unknown in ["1.17.9", "2.0.0", "0.1.0", "local", ""] {
            assert!(warning(unknown).is_some(), "{unknown}");
        }
    }
}
