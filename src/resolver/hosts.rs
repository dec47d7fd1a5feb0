//! `/etc/hosts`.

use std::net::IpAddr;
use std::str::FromStr;

/// The addresses that the file gives a name, in its order. Every line counts that has the name, and a line that cannot be read
/// does not.
pub(super) fn addresses(content: &[u8], name: &str) -> Vec<IpAddr> {
    let mut found = Vec::new();
    for line in content.split(|byte| *byte == b'\n') {
        let line = line.split(|byte| *byte == b'#').next().unwrap_or_default();
        let mut words = line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
        let address = words.next().and_then(|word| std::str::from_utf8(word).ok());
        // A scope cannot be handed on, and whoever names one means a link of this machine.
        let address = address.and_then(|word| IpAddr::from_str(word.split('%').next()?).ok());
        let Some(address) = address else { continue };
        if words.any(|word| word.eq_ignore_ascii_case(name.as_bytes())) && !found.contains(&address) {
            found.push(address);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_with_the_name_counts_and_what_cannot_be_read_does_not() {
        let content =
            b"# 10.0.0.9 forge\n10.0.0.1\tother Forge_1.test # forge\nnonsense forge_1.test\n\xff forge_1.test\n\
            ::1 forge_1.test\r\n10.0.0.1 forge_1.test\n10.0.0.2 xforge_1.test forge_1.testx\n10.0.0.3";
        let of = |name| addresses(content, name);
        assert_eq!(of("forge_1.test"), ["10.0.0.1".parse::<IpAddr>().unwrap(), "::1".parse().unwrap()]);
        assert_eq!(of("other"), ["10.0.0.1".parse::<IpAddr>().unwrap()]);
        assert!(of("forge").is_empty() && of("").is_empty() && of("10.0.0.3").is_empty());
    }
}
