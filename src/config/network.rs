//! The settings about the way to the forge.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use reqwest::Url;

use super::certificates::{self, Certificates};
use super::exceptions::{self, Bypass};
use super::proxy;
use super::reader::Reader;
use super::x509;
use crate::encode::{day, seconds};
use crate::plain::plain;
use crate::shown::{quoted, shown};

/// How to reach the forge: proxies and trust.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Network {
    /// Proxy for `http://`.
    pub http_proxy: Option<String>,
    /// Proxy for `https://`.
    pub https_proxy: Option<String>,
    /// Hosts without proxy.
    pub no_proxy: Option<String>,
    /// The entries of that list which are understood.
    pub(crate) exceptions: Vec<Bypass>,
    /// Certificates to trust besides the system's.
    pub ca_file: Option<PathBuf>,
}

/// How an address is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way<'a> {
    /// By way of a proxy: the setting that names it, and its address.
    Proxy(&'static str, &'a str),
    /// Without one.
    Direct(Direct<'a>),
}

/// Why there is no proxy on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direct<'a> {
    /// None is set for such addresses.
    Unset,
    /// It is this machine.
    OwnMachine,
    /// By this entry of `NO_PROXY`.
    Excepted(&'a str),
}

impl Network {
    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        let mut address = |name| {
            let value = reader.of_either_case(name)?;
            proxy::proved(reader, name, value)
        };
        let http_proxy = address("HTTP_PROXY");
        let https_proxy = address("HTTPS_PROXY");
        let no_proxy = reader.of_either_case("NO_PROXY");
        let (exceptions, unread) = no_proxy.as_deref().map(exceptions::read).unwrap_or_default();
        for text in unread {
            let shown = quoted(text);
            reader.note(format!(
                "NO_PROXY: {shown} is neither a host, nor host:port, nor an address or a network (10.0.0.0/8), and has no effect here"
            ));
        }
        for name in ["ALL_PROXY", "all_proxy"] {
            if reader.foreign(name).is_some() {
                reader.note(format!(
                    "{name} has no effect: no agent reads it. Set HTTPS_PROXY, and HTTP_PROXY for plain HTTP"
                ));
            }
        }
        let ca_file = reader.text("OSCR_CA_FILE").map(PathBuf::from);
        if let Some(file) = &ca_file {
            look_at(file, reader);
        }
        Self { http_proxy, https_proxy, no_proxy, exceptions, ca_file }
    }

    /// How an address is reached.
    pub(crate) fn way(&self, url: &Url) -> Way<'_> {
        let (setting, proxy) = match url.scheme() {
            "https" => ("HTTPS_PROXY", &self.https_proxy),
            _ => ("HTTP_PROXY", &self.http_proxy),
        };
        let Some(proxy) = proxy else { return Way::Direct(Direct::Unset) };
        if exceptions::is_own_machine(url) {
            return Way::Direct(Direct::OwnMachine);
        }
        match self.exceptions.iter().find(|exception| exception.covers(url)) {
            Some(exception) => Way::Direct(Direct::Excepted(&exception.text)),
            None => Way::Proxy(setting, proxy),
        }
    }

    /// The setting and the address of the proxy on the way to an address, if there is one, without who asks.
    pub(crate) fn proxy_to(&self, url: &str) -> Option<(&'static str, String)> {
        match self.way(&Url::parse(url).ok()?) {
            Way::Proxy(setting, address) => Some((setting, shown(address))),
            Way::Direct(_) => None,
        }
    }

    /// Whether anything goes by way of a proxy.
    pub(crate) fn has_proxy(&self) -> bool {
        self.http_proxy.is_some() || self.https_proxy.is_some()
    }
}

/// Whether a file of certificates is one.
fn look_at(file: &Path, reader: &mut Reader<'_>) {
    let shown = shown(&file.to_string_lossy());
    let content = match std::fs::read(file) {
        Ok(content) => content,
        Err(error) if error.kind() == ErrorKind::IsADirectory => {
            let why = format!("{shown} is a directory");
            let cure = "name the file in it; where Docker made the directory, the file that should be mounted is not on the host";
            reader.problem("OSCR_CA_FILE", why, cure);
            return;
        }
        Err(error) => {
            reader.problem(
                "OSCR_CA_FILE",
                format!("{shown} cannot be read: {error}"),
                "mount a file there, or unset it",
            );
            return;
        }
    };
    let found = Certificates::of(&content);
    let (usable, useless) = found.roots();
    if usable.is_empty() {
        let why = if content.is_empty() { "is empty" } else { "has no certificate in it that can be used" };
        reader.problem("OSCR_CA_FILE", format!("{shown} {why}"), certificates::cure(&content));
        return;
    }
    let useless = useless + found.unreadable;
    if useless > 0 {
        reader.warning(format!(
            "OSCR_CA_FILE: {useless} of the certificates in {shown} cannot be read and are passed over"
        ));
    }
    let now = seconds(SystemTime::now());
    let expired = found.der.iter().filter_map(|it| x509::facts(it)).filter(|facts| facts.ends < now);
    for facts in expired {
        let (name, day) = (plain(facts.common_name.unwrap_or("without a name")), day(facts.ends));
        reader.warning(format!("OSCR_CA_FILE: the certificate of {name:?} in {shown} expired on {day}: put its successor there, or take it out"));
    }
    if found.private_key {
        reader.warning(format!(
            "OSCR_CA_FILE: {shown} has a private key in it. It is left out of what jobs are given to read; take it out of the \
             file, which is for certificates"
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::table::COMMON;
    use crate::config::{Environment, Problem};

    fn read<const N: usize>(variables: [(&str, &str); N]) -> Result<(Network, Vec<String>), Vec<Problem>> {
        let environment = Environment::from(variables);
        let mut reader = Reader::new(&environment, vec![COMMON]);
        let network = Network::read(&mut reader);
        reader.finish().map(|read| (network, read.notes))
    }

    #[test]
    fn small_letters_win_with_a_note() {
        for (capital, small, one, other) in [
            ("HTTP_PROXY", "http_proxy", "http://one:1", "http://other:1"),
            ("HTTPS_PROXY", "https_proxy", "http://one:1", "http://other:1"),
            ("NO_PROXY", "no_proxy", "a.example,b.example", "b.example,a.example"),
        ] {
            let (network, notes) = read([(capital, one), (small, other)]).unwrap();
            let value = [network.http_proxy, network.https_proxy, network.no_proxy].into_iter().flatten().next();
            assert_eq!(value.as_deref(), Some(other));
            let said = format!("{small} is used: {capital} says something else");
            assert!(notes.iter().any(|note| note.starts_with(&said)), "{notes:?}");
            let (_, notes) = read([(capital, one), (small, one)]).unwrap();
            assert!(notes.is_empty(), "{notes:?}");
            let (network, _) = read([(small, one)]).unwrap();
            assert_ne!(network, Network::default());
        }
    }

    #[test]
    fn a_proxy_that_cannot_be_used_is_a_problem_without_its_password() {
        for (name, value) in [
            ("HTTP_PROXY", "http://me:hid#den@proxy:3128"),
            ("https_proxy", "socks5://me:hidden@proxy:1080"),
            ("HTTPS_PROXY", "http://me:hidden@"),
        ] {
            let problems = read([(name, value)]).unwrap_err();
            assert_eq!((problems.len(), problems[0].setting.as_str()), (1, name));
            assert!(!problems[0].to_string().contains("hid"), "{}", problems[0]);
        }
    }

    #[test]
    fn the_way_to_an_address_is_one_of_the_schemes_proxy_unless_excepted() {
        let set = [("HTTPS_PROXY", "http://p:3128"), ("NO_PROXY", ".corp, forge.example:8443")];
        let (network, _) = read(set).unwrap();
        let way = |url: &str| network.way(&Url::parse(url).unwrap());
        assert_eq!(way("https://api.forge.example/x"), Way::Proxy("HTTPS_PROXY", "http://p:3128"));
        assert_eq!(way("http://api.forge.example/x"), Way::Direct(Direct::Unset));
        assert_eq!(way("https://git.corp/x"), Way::Direct(Direct::Excepted(".corp")));
        assert_eq!(way("https://forge.example:8443"), Way::Direct(Direct::Excepted("forge.example:8443")));
        assert_eq!(way("https://127.0.0.1:8443"), Way::Direct(Direct::OwnMachine));
    }

    #[test]
    fn a_proxy_for_all_is_no_setting_of_any_agent() {
        let (network, notes) = read([("all_proxy", "socks5://me:hidden@proxy:1080")]).unwrap();
        assert_eq!(network, Network::default());
        assert!(notes.len() == 1 && notes[0].starts_with("all_proxy has no effect"), "{notes:?}");
        assert!(!notes[0].contains("hidden"), "{notes:?}");
    }

    #[test]
    fn an_exception_that_is_none_is_told() {
        let (_, notes) = read([("NO_PROXY", "good.example, https://bad.example")]).unwrap();
        assert!(notes.len() == 1 && notes[0].contains("\"https://bad.example\""), "{notes:?}");
    }
}
