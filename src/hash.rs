//! OWNS ring and subtle: SHA-256, HMAC with it, SHA-1, and comparisons that take the same time wherever two values differ.

use ring::{digest, hmac};
use subtle::ConstantTimeEq;

/// Of SHA-256.
pub(crate) type Digest = [u8; 32];

/// A digest of what comes in parts.
pub(crate) struct Sha256(digest::Context);

impl Sha256 {
    pub(crate) fn new() -> Self {
        Sha256(digest::Context::new(&digest::SHA256))
    }

    pub(crate) fn update(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.update(bytes.as_ref())
    }

    pub(crate) fn finish(self) -> Digest {
        whole(self.0.finish().as_ref())
    }
}

pub(crate) fn sha256(bytes: &[u8]) -> Digest {
    whole(digest::digest(&digest::SHA256, bytes).as_ref())
}

/// For what asks for it; it protects nothing.
pub(crate) fn sha1(bytes: &[u8]) -> [u8; 20] {
    let digest = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, bytes);
    *digest.as_ref().first_chunk().expect("SHA-1 has 20 bytes")
}

/// A key of HMAC-SHA256 (RFC 2104). Its `Debug` shows nothing of it.
#[derive(Debug)]
pub(crate) struct HmacKey(hmac::Key);

impl HmacKey {
    pub(crate) fn new(secret: &[u8]) -> Self {
        HmacKey(hmac::Key::new(hmac::HMAC_SHA256, secret))
    }

    /// The signature of these parts, one after the other.
    pub(crate) fn sign(&self, parts: &[&[u8]]) -> Digest {
        let mut context = hmac::Context::with_key(&self.0);
        parts.iter().for_each(|part| context.update(part));
        whole(context.sign().as_ref())
    }
}

fn whole(digest: &[u8]) -> Digest {
    *digest.first_chunk().expect("SHA-256 has 32 bytes")
}

/// Whether they are equal; the time says only whether they are of equal length.
pub(crate) fn are_equal(one: &[u8], other: &[u8]) -> bool {
    let ((one, one_end), (other, other_end)) = (one.as_chunks(), other.as_chunks());
    if (one.len(), one_end.len()) != (other.len(), other_end.len()) {
        return false;
    }
    let words = one.iter().zip(other).map(|(one, other)| u64::from_ne_bytes(*one).ct_eq(&u64::from_ne_bytes(*other)));
    words.fold(one_end.ct_eq(other_end), |all, word| all & word).into()
}

/// In lower case.
pub(crate) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |nibble: u8| char::from(DIGITS[usize::from(nibble)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

/// A digest in hexadecimal digits of any case. None for anything else.
pub(crate) fn from_hex(text: &[u8]) -> Option<Digest> {
    let mut digest = Digest::default();
    if text.len() != 2 * digest.len() {
        return None;
    }
    let mut wrong = 0;
    for (byte, pair) in digest.iter_mut().zip(text.as_chunks::<2>().0) {
        let [high, low] = pair.map(|digit| NIBBLES[usize::from(digit)]);
        wrong |= high | low;
        *byte = high << 4 | low
    }
    if wrong > 0xf {
        return None;
    }
    Some(digest)
}

/// The value of each hexadecimal digit, and more than that of one for all other bytes.
static NIBBLES: [u8; 256] = {
    let (mut nibbles, mut digit) = ([0xff; 256], 0);
    while digit < 16 {
        nibbles[b"0123456789abcdef"[digit] as usize] = digit as u8;
        nibbles[b"0123456789ABCDEF"[digit] as usize] = digit as u8;
        digit += 1
    }
    nibbles
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_and_signatures() {
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(hex(&sha256(b"abc")), abc);
        let mut parts = Sha256::new();
        ["a", "", "bc"].iter().for_each(|part| parts.update(part));
        assert_eq!(hex(&parts.finish()), abc);
        // RFC 4231, test case 2
        let key = HmacKey::new(b"Jefe");
        let want = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
        assert_eq!(hex(&key.sign(&[b"what do ya want ", b"for nothing?"])), want);
        assert!(!format!("{key:?}").contains("Jefe"));
    }

    #[test]
    fn digests_are_read_strictly() {
        let digest = sha256(b"abc");
        let text = hex(&digest);
        assert_eq!(from_hex(text.as_bytes()), Some(digest));
        assert_eq!(from_hex(text.to_uppercase().as_bytes()), Some(digest));
        for bad in ["", &text[1..], &format!("{text}0"), &text.replace('b', "g"), &text.replace("ba", "+a")] {
            assert_eq!(from_hex(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn equal_bytes_are_equal() {
        for length in 0..40 {
            let bytes: Vec<u8> = (0..length).collect();
            assert!(are_equal(&bytes, &bytes.clone()), "{length}");
            assert!(!are_equal(&bytes, &[&bytes[..], b"x"].concat()), "{length}");
            for at in 0..bytes.len() {
                let mut other = bytes.clone();
                other[at] ^= 0x80;
                assert!(!are_equal(&bytes, &other), "{length} {at}");
            }
        }
    }
}
