//! The just-in-time configuration: base64 of a JSON object that maps a file's name to the base64 of its content.
//!
//! The agent can take it as an argument or a variable, but a variable stays readable for the job in `/proc`, so the files
//! are written by us, exactly as the agent would.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use crate::config::Secret;
use crate::provider::Files;

/// Decodes the files. Only plain dot files are accepted: the content comes from the network and ends up on disk.
///
/// # Errors
/// What is wrong with it, in words.
pub fn decode(encoded: &str) -> Result<Files, String> {
    let json = Zeroizing::new(STANDARD.decode(encoded.trim()).map_err(|_| "it is not base64".to_owned())?);
    let files: BTreeMap<String, Secret> =
        serde_json::from_slice(&json).map_err(|_| "it is not a JSON object of strings".to_owned())?;
    let mut decoded = Vec::new();
    for (name, content) in files {
        let plain = name.starts_with('.') && name.len() > 2 && !name.contains(['/', '\0']) && name != "..";
        if !plain || matches!(name.as_str(), ".env" | ".path") {
            return Err(format!("it holds a file with the unexpected name {name:?}"));
        }
        let content = STANDARD.decode(content.expose()).map_err(|_| format!("the content of {name} is not base64"))?;
        decoded.push((name, Zeroizing::new(content)));
    }
    if !decoded.iter().any(|(name, _)| name == ".runner") {
        return Err("it holds no .runner file".to_owned());
    }
    Ok(decoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encode(json: &str) -> String {
        STANDARD.encode(json)
    }

    #[test]
    fn files_come_out_as_they_went_in() {
        let content = STANDARD.encode("{}");
        let files = decode(&encode(&format!(r#"{{".runner":"{content}",".credentials":"{content}"}}"#))).unwrap();
        let names: Vec<&str> = files.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, [".credentials", ".runner"]);
        assert_eq!(*files[0].1, b"{}");
    }

    #[test]
    fn names_that_would_reach_elsewhere_are_refused() {
        for name in ["../.runner", "/etc/passwd", "..", ".", "bin", ".env", ".path", ".a/b"] {
            let json = format!(r#"{{".runner":"e30=","{name}":"e30="}}"#);
            assert!(decode(&encode(&json)).unwrap_err().contains("unexpected name"), "{name}");
        }
        assert!(decode("%%%").unwrap_err().contains("base64"));
        assert!(decode(&encode("[]")).is_err());
        assert!(decode(&encode("{}")).unwrap_err().contains(".runner"));
    }
}
