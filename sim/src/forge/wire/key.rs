//! A key for a runner that is configured just in time: well formed, and no secret.
//!
//! All keys have the same two primes, because nobody checks what is signed, and each an exponent of its own: the private
//! exponent is also what the stand-in agent shows, by which the forge tells runners apart.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};

use crate::forge::app::OTHER_KEY;

/// `.credentials_rsaparams` of a new runner.
pub(crate) fn runner_key() -> Value {
    let [_version, modulus, _, _, p, q, _, _, inverse] = numbers(OTHER_KEY);
    // A prime above two, less one.
    let less_one = |prime: &[u8]| {
        let mut number = prime.to_vec();
        if let Some(last) = number.last_mut() {
            *last &= !1;
        }
        number
    };
    let (p_less, q_less) = (less_one(&p), less_one(&q));
    let both = minus(&minus(&modulus, &p), &q_less);
    let (exponent, private) = loop {
        let exponent = random_exponent();
        let found = [&both, &p_less, &q_less].map(|of| inverse_of(exponent, of));
        if let [Some(d), Some(dp), Some(dq)] = found {
            break (exponent, [d, dp, dq]);
        }
    };
    let [d, dp, dq] = private;
    let text = |number: &[u8]| BASE64.encode(number);
    json!({
        "d": text(&d),
        "dp": text(&dp),
        "dq": text(&dq),
        "exponent": text(&exponent.to_be_bytes()),
        "inverseQ": text(&inverse),
        "modulus": text(&modulus),
        "p": text(&p),
        "q": text(&q),
    })
}

/// Odd, and of 32 bits.
fn random_exponent() -> u32 {
    let mut bytes = [0; 4];
    getrandom::fill(&mut bytes).expect("the kernel gives random bytes");
    u32::from_be_bytes(bytes) | 0x8000_0001
}

/// The nine numbers of a private key in PKCS#1, big-endian, without a zero in front, halves of one length.
fn numbers(pem: &str) -> [Vec<u8>; 9] {
    let body: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    let der = BASE64.decode(body).expect("the fixture is PEM");
    let (mut rest, _) = element(&der);
    std::array::from_fn(|_| {
        let (number, after) = element(rest);
        rest = after;
        number.strip_prefix(&[0]).filter(|number| !number.is_empty()).unwrap_or(number).to_vec()
    })
}

/// The content of the first element of DER, and what follows it.
fn element(der: &[u8]) -> (&[u8], &[u8]) {
    let (length, at) = match der[1] {
        short @ 0..0x80 => (usize::from(short), 2),
        long => {
            let count = usize::from(long & 0x7f);
            (der[2..2 + count].iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), 2 + count)
        }
    };
    (&der[at..at + length], &der[at + length..])
}

/// `a - b`, in the length of `a`.
fn minus(a: &[u8], b: &[u8]) -> Vec<u8> {
    let mut result = a.to_vec();
    let mut borrow = false;
    for (at, digit) in result.iter_mut().rev().enumerate() {
        let take = b.len().checked_sub(at + 1).map_or(0, |index| b[index]);
        let (first, under) = digit.overflowing_sub(take);
        let (second, again) = first.overflowing_sub(u8::from(borrow));
        (*digit, borrow) = (second, under || again);
    }
    result
}

/// The inverse of a small number, modulo a large one and in its length; none if they have a factor in common.
///
/// It is `(1 + k * modulus) / small`, with the `k` that makes this a whole number.
fn inverse_of(small: u32, modulus: &[u8]) -> Option<Vec<u8>> {
    let small = u64::from(small);
    let rest = modulus.iter().fold(0, |rest, byte| (rest << 8 | u64::from(*byte)) % small);
    let k = small_inverse(small - rest, small)?;
    let mut carry = 1;
    let mut product: Vec<u8> = Vec::with_capacity(modulus.len() + 4);
    for byte in modulus.iter().rev().chain(&[0; 4]) {
        carry += u64::from(*byte) * k;
        product.push(carry.to_le_bytes()[0]);
        carry >>= 8;
    }
    let mut rest = 0;
    let quotient = product.iter().rev().map(|byte| {
        let number = rest << 8 | u64::from(*byte);
        rest = number % small;
        (number / small).to_le_bytes()[0]
    });
    Some(quotient.collect::<Vec<u8>>().split_off(4))
}

/// The inverse of `a` modulo `m`, by Euclid.
fn small_inverse(a: u64, m: u64) -> Option<u64> {
    let (modulus, mut r, mut next) = (i128::from(m), i128::from(m), i128::from(a % m));
    let (mut t, mut next_t) = (0, 1);
    while next != 0 {
        let times = r / next;
        (r, next) = (next, r - times * next);
        (t, next_t) = (next_t, t - times * next_t);
    }
    (r == 1).then(|| u64::try_from(t.rem_euclid(modulus)).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ring::rsa::{KeyPair, KeyPairComponents, PublicKeyComponents};

    #[test]
    fn keys_are_consistent_of_full_length_and_different() {
        let keys = [runner_key(), runner_key()];
        assert_ne!(keys[0]["d"], keys[1]["d"]);
        for key in &keys {
            let part = |name: &str| BASE64.decode(key[name].as_str().expect("a text")).expect("base64");
            for (name, length) in [("modulus", 256), ("d", 256), ("p", 128), ("q", 128), ("dp", 128), ("dq", 128)] {
                assert_eq!(part(name).len(), length, "{name}");
            }
            assert_eq!(part("inverseQ").len(), 128);
            // It holds the parts against each other. It takes no number with zeros in front, which one in 256 begins with.
            let bare = |name: &str| {
                let number = part(name);
                number[number.iter().position(|byte| *byte != 0).unwrap_or(0)..].to_vec()
            };
            let pair = KeyPair::from_components(&KeyPairComponents {
                public_key: PublicKeyComponents { n: bare("modulus"), e: bare("exponent") },
                d: bare("d"),
                p: bare("p"),
                q: bare("q"),
                dP: bare("dp"),
                dQ: bare("dq"),
                qInv: bare("inverseQ"),
            });
            assert!(pair.is_ok(), "{pair:?}");
        }
    }
}
