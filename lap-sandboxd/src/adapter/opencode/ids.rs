//! Ids in opencode's form.

use uuid::Uuid;

const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// The id under which a turn's message goes to opencode.
///
/// opencode sorts messages by their ids and answers a message only when it is the newest, so the first half is
/// the time of the delivery as opencode itself writes it: the low 48 bits of 4096 times the milliseconds. The second half
/// is the turn's, so that its message is found again by [`is_of_turn`].
pub(super) fn message_id(turn: Uuid, unix_millis: i64) -> String {
    let time = (unix_millis.unsigned_abs() << 12) & 0xffff_ffff_ffff;
    format!("msg_{time:012x}{}", turn_half(turn))
}

/// Whether a message is that of the turn.
pub(super) fn is_of_turn(message: &str, turn: Uuid) -> bool {
    message.starts_with("msg_") && message.ends_with(&turn_half(turn))
}

/// 14 digits of base 62: 83 bits, of which a version 7 UUID has 74 random ones at its end.
fn turn_half(turn: Uuid) -> String {
    let mut rest = turn.as_u128();
    let mut digits = [b'0'; 14];
    for digit in digits.iter_mut().rev() {
        *digit = usize::try_from(rest % 62)
            .ok()
            .and_then(|at| DIGITS.get(at).copied())
            .unwrap_or(b'0');
        rest /= 62;
    }
    String::from_utf8_lossy(&digits).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_sort_by_delivery_and_carry_their_turn() {
        let (first, second) = (
            Uuid::from_u128(0x0199_0000_0000_7000_8000_0000_0000_ffff),
            Uuid::from_u128(0x0199_0000_0000_7000_8000_0000_0000_0001),
        );
        let (one, two) = (
            message_id(first, 1_795_624_491_687),
            message_id(second, 1_795_624_491_688),
        );
        assert_eq!(one.len(), "msg_2138f5abf0011AWqyHV3aVjZz5".len());
        // opencode 1.18 itself wrote 2138f5ab8001 for an event 17 milliseconds later.
        assert!(one.starts_with("msg_2138f5aa7000"), "{one}");
        assert!(one < two);
        assert!(is_of_turn(&one, first) && !is_of_turn(&one, second));
    }
}
