//! The proof that we are a GitHub App: a JSON web token, signed with the App's private key (RS256, RFC 7515 and 7519).

use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::rand::SystemRandom;
use ring::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use serde_json::json;
use zeroize::Zeroizing;

use crate::config::Secret;
use crate::encode::seconds;

/// How far back the token is dated: GitHub refuses one from what it takes for the future.
const MARGIN: Duration = Duration::from_secs(60);
/// How long it is valid from now. GitHub accepts ten minutes at most, by its own clock.
const LIFE: Duration = Duration::from_secs(9 * 60);

/// What is wrong with a private key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum KeyError {
    /// No PEM at all.
    #[error("it is no private key in PEM form (-----BEGIN RSA PRIVATE KEY----- …)")]
    NotPem,
    /// A PEM of something else.
    #[error("it is {0}, and not the private key that GitHub gave for the App (-----BEGIN RSA PRIVATE KEY-----)")]
    OtherPem(&'static str),
    /// The text between the lines is damaged.
    #[error("its text is damaged or cut short: it is no base64")]
    Damaged,
    /// The bytes are no RSA key that can sign.
    #[error("it is damaged, or no RSA key of 2048 bits or more")]
    NotRsa,
}

/// The two forms in which RSA keys are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Pkcs1,
    Pkcs8,
}

/// Checks that `key` can sign, without signing anything.
///
/// # Errors
/// See [`KeyError`].
pub(super) fn check(key: &Secret) -> Result<(), KeyError> {
    key_pair(key).map(drop)
}

/// A token for the App `issuer` (its id or client id), valid for nine minutes from `now`, the time at GitHub.
///
/// # Errors
/// See [`KeyError`].
pub(super) fn sign(issuer: &str, key: &Secret, now: SystemTime) -> Result<Secret, KeyError> {
    let pair = key_pair(key)?;
    let header = json!({ "alg": "RS256", "typ": "JWT" });
    let claims = json!({ "iat": seconds(now - MARGIN), "exp": seconds(now + LIFE), "iss": issuer });
    let encode = |part: &serde_json::Value| URL_SAFE_NO_PAD.encode(part.to_string());
    let signed = format!("{}.{}", encode(&header), encode(&claims));
    let mut signature = vec![0; pair.public().modulus_len()];
    pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), signed.as_bytes(), &mut signature)
        .map_err(|_| KeyError::NotRsa)?;
    Ok(Secret::new(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))))
}

fn key_pair(key: &Secret) -> Result<RsaKeyPair, KeyError> {
    let (form, der) = read_pem(key.expose())?;
    let pair = match form {
        Form::Pkcs1 => RsaKeyPair::from_der(&der),
        Form::Pkcs8 => RsaKeyPair::from_pkcs8(&der),
    };
    pair.map_err(|_| KeyError::NotRsa)
}

/// The bytes of the first private key in `text`. Its line ends may be real, written as `\n`, or lost, as happens to values
/// that travel through variables.
fn read_pem(text: &str) -> Result<(Form, Zeroizing<Vec<u8>>), KeyError> {
    let (_, rest) = text.split_once("-----BEGIN ").ok_or(KeyError::NotPem)?;
    let (label, rest) = rest.split_once("-----").ok_or(KeyError::NotPem)?;
    let form = match label {
        "RSA PRIVATE KEY" => Form::Pkcs1,
        "PRIVATE KEY" => Form::Pkcs8,
        "ENCRYPTED PRIVATE KEY" => return Err(KeyError::OtherPem("a key with a passphrase")),
        "OPENSSH PRIVATE KEY" => return Err(KeyError::OtherPem("a key for SSH")),
        "CERTIFICATE" => return Err(KeyError::OtherPem("a certificate")),
        "PUBLIC KEY" | "RSA PUBLIC KEY" => return Err(KeyError::OtherPem("the public half of a key")),
        _ => return Err(KeyError::OtherPem("something else in PEM form")),
    };
    let (body, _) = rest.split_once("-----END ").ok_or(KeyError::Damaged)?;
    if body.contains("ENCRYPTED") {
        return Err(KeyError::OtherPem("a key with a passphrase"));
    }
    let unescaped = Zeroizing::new(body.replace("\\r", "").replace("\\n", ""));
    let mut dense = Zeroizing::new(String::with_capacity(unescaped.len()));
    dense.extend(unescaped.chars().filter(|c| !c.is_whitespace()));
    let der = STANDARD.decode(dense.as_bytes()).map_err(|_| KeyError::Damaged)?;
    Ok((form, Zeroizing::new(der)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ring::signature::{RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};

    const PKCS1: &str = include_str!("../../../sim/fixtures/app.pkcs1.pem");
    const PKCS8: &str = include_str!("../../../sim/fixtures/app.pkcs8.pem");
    const PUBLIC: &str = include_str!("../../../sim/fixtures/app.public.pem");

    fn secret(text: &str) -> Secret {
        Secret::new(text.to_owned())
    }

    #[test]
    fn one_key_in_all_its_spellings_makes_the_same_token() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let spellings = [
            PKCS1.to_owned(),
            PKCS8.to_owned(),
            PKCS1.replace('\n', "\\n"),
            PKCS8.replace('\n', "\\r\\n"),
            PKCS1.replace('\n', "\r\n"),
            PKCS1.replace('\n', " "),
            format!("Some words before\n{PKCS8}"),
        ];
        let tokens: Vec<String> =
            spellings.iter().map(|key| sign("12345", &secret(key), now).unwrap().expose().to_owned()).collect();
        assert!(tokens.iter().all(|token| *token == tokens[0]));

        let (signed, signature) = tokens[0].rsplit_once('.').unwrap();
        let public: String = PUBLIC.lines().filter(|line| !line.starts_with('-')).collect();
        let public = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, STANDARD.decode(public).unwrap());
        public.verify(signed.as_bytes(), &URL_SAFE_NO_PAD.decode(signature).unwrap()).unwrap();
        let (_, claims) = signed.split_once('.').unwrap();
        let claims: serde_json::Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).unwrap()).unwrap();
        assert_eq!(claims, json!({ "iat": 1_699_999_940, "exp": 1_700_000_540, "iss": "12345" }));
    }

    #[test]
    fn what_is_no_key_is_named_for_what_it_is() {
        let cut = PKCS1.split_at(PKCS1.len() / 2).0;
        let shorter = PKCS1.lines().enumerate().filter(|(at, _)| *at != 3).map(|(_, line)| line);
        let shorter: String = shorter.flat_map(|line| [line, "\n"]).collect();
        for (text, error) in [
            ("ghp_token", KeyError::NotPem),
            (cut, KeyError::Damaged),
            (&shorter, KeyError::NotRsa),
            (PUBLIC, KeyError::OtherPem("the public half of a key")),
            (
                "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMII=\n-----END ENCRYPTED PRIVATE KEY-----",
                KeyError::OtherPem("a key with a passphrase"),
            ),
            (
                "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nMII=\n-----END RSA PRIVATE KEY-----",
                KeyError::OtherPem("a key with a passphrase"),
            ),
            (
                "-----BEGIN OPENSSH PRIVATE KEY-----\nb3Bl\n-----END OPENSSH PRIVATE KEY-----",
                KeyError::OtherPem("a key for SSH"),
            ),
        ] {
            assert_eq!(check(&secret(text)), Err(error), "{error}");
        }
    }

    #[test]
    fn fuzz_key() {
        crate::fuzz::run("key", |bytes| {
            let text = String::from_utf8_lossy(bytes).into_owned();
            let checked = check(&Secret::new(text));
            checked.map_err(|error| error.to_string())
        });
    }
}
