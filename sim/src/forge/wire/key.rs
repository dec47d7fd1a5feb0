//! The key of a runner that is configured just in time: well formed, and no secret.
//!
//! All runners have the same one, because nobody checks what is signed.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};

use crate::forge::app::OTHER_KEY;

/// `.credentials_rsaparams` of a runner.
pub(crate) fn runner_key() -> Value {
    let [_version, modulus, exponent, d, p, q, dp, dq, inverse] = numbers(OTHER_KEY);
    let half = modulus.len() / 2;
    // .NET takes no part that is shorter than the modulus, or its half, demands.
    let text = |number: &[u8], length: usize| {
        let zeros = vec![0; length.saturating_sub(number.len())];
        BASE64.encode([zeros.as_slice(), number].concat())
    };
    json!({
        "d": text(&d, modulus.len()),
        "dp": text(&dp, half),
        "dq": text(&dq, half),
        "exponent": text(&exponent, 0),
        "inverseQ": text(&inverse, half),
        "modulus": text(&modulus, 0),
        "p": text(&p, half),
        "q": text(&q, half),
    })
}

/// The nine numbers of a private key in PKCS#1, big-endian, without a zero in front.
fn numbers(pem: &str) -> [Vec<u8>; 9] {
    let body: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    let der = BASE64.decode(body).expect("the fixture is PEM");
    let (mut rest, _) = element(&der);
    std::array::from_fn(|_| {
        let (number, after) = element(rest);
        rest = after;
        number.strip_prefix(&[0]).unwrap_or(number).to_vec()
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

#[cfg(test)]
mod tests {
    use super::*;
    use ring::rsa::{KeyPair, KeyPairComponents, PublicKeyComponents};

    #[test]
    fn the_keys_parts_are_consistent_and_of_full_length() {
        let key = runner_key();
        let part = |name: &str| BASE64.decode(key[name].as_str().expect("a text")).expect("base64");
        for (name, length) in
            [("modulus", 256), ("d", 256), ("p", 128), ("q", 128), ("dp", 128), ("dq", 128), ("inverseQ", 128)]
        {
            assert_eq!(part(name).len(), length, "{name}");
        }
        // It holds the parts against each other, and takes no number with zeros in front.
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
