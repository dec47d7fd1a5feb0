//! `/etc/resolv.conf`, read as glibc reads it: what cannot be read is passed over.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV6};
use std::str::FromStr;
use std::time::Duration;

/// How many servers are asked, and what is the most of each number, whatever the file says: glibc's limits.
const SERVERS: usize = 3;
const DOTS: usize = 15;
const TIMEOUT: u64 = 30;
const ATTEMPTS: u32 = 5;

/// Port of name servers.
const PORT: u16 = 53;

/// Whom to ask, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Conf {
    /// In the order of the file; this machine, if it names nobody.
    pub servers: Vec<SocketAddr>,
    /// Whether the file names any of them.
    pub named: bool,
    search: Vec<String>,
    ndots: usize,
    /// How long one question waits for its answer.
    pub timeout: Duration,
    /// How often everybody is asked.
    pub attempts: u32,
    /// Whether to begin with any of the servers.
    pub rotate: bool,
    /// Whether to ask by TCP at once.
    pub by_tcp: bool,
    /// Whether nobody is to be asked for addresses of IPv6.
    pub no_ipv6: bool,
    no_tld_query: bool,
}

/// A name to ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SearchedName {
    pub name: String,
    /// Whether it is what was looked up, and nothing of the search list.
    pub as_it_stands: bool,
}

impl Conf {
    /// Reads the file. `own_name` is this machine's.
    pub(super) fn read(content: &[u8], own_name: Option<&str>) -> Self {
        let mut conf = Self {
            servers: Vec::new(),
            named: true,
            search: Vec::new(),
            ndots: 1,
            timeout: Duration::from_secs(5),
            attempts: 2,
            rotate: false,
            by_tcp: false,
            no_ipv6: false,
            no_tld_query: false,
        };
        let text = String::from_utf8_lossy(content);
        for line in text.split('\n') {
            // A keyword begins its line: a blank or a mark before it makes it a remark.
            let Some((keyword, rest)) = line.split_once([' ', '\t']) else { continue };
            let mut words = rest.split([' ', '\t']).filter(|word| !word.is_empty());
            match keyword {
                "nameserver" => conf.servers.extend(words.next().and_then(server)),
                "domain" => {
                    if let Some(domain) = words.next() {
                        conf.search = vec![domain.to_owned()];
                    }
                }
                "search" => {
                    let listed: Vec<_> = words.map(str::to_owned).collect();
                    if !listed.is_empty() {
                        conf.search = listed;
                    }
                }
                "options" => words.for_each(|word| conf.option(word)),
                _ => {}
            }
        }
        conf.servers.truncate(SERVERS);
        conf.named = !conf.servers.is_empty();
        if !conf.named {
            conf.servers.push(SocketAddr::from((Ipv4Addr::LOCALHOST, PORT)));
        }
        if conf.search.is_empty() {
            conf.search.extend(own_name.and_then(|name| name.split_once('.')).map(|(_, domain)| domain.to_owned()));
        }
        conf
    }

    fn option(&mut self, word: &str) {
        // What begins with no number is none, as C reads it.
        let number = |text: &str| {
            let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
            text[..end].parse::<u64>().unwrap_or(if end == 0 { 0 } else { u64::MAX })
        };
        let up_to = |text: &str, most: u64| number(text).min(most);
        match word.split_once(':') {
            Some(("ndots", value)) => self.ndots = usize::try_from(up_to(value, DOTS as u64)).unwrap_or(DOTS),
            Some(("timeout", value)) => self.timeout = Duration::from_secs(up_to(value, TIMEOUT).max(1)),
            Some(("attempts", value)) => {
                self.attempts = u32::try_from(up_to(value, ATTEMPTS.into())).unwrap_or(ATTEMPTS).max(1);
            }
            _ => match word {
                "rotate" => self.rotate = true,
                "use-vc" => self.by_tcp = true,
                "no-aaaa" => self.no_ipv6 = true,
                "no-tld-query" => self.no_tld_query = true,
                // What an answer may be is asked for by nobody here (edns0, trust-ad), and a kind of address that stays
                // unanswered holds up no other (single-request, single-request-reopen).
                _ => {}
            },
        }
    }

    /// The names to ask for, in their order.
    pub(super) fn candidates(&self, name: &str) -> Vec<SearchedName> {
        let as_it_stands = || SearchedName { name: name.to_owned(), as_it_stands: true };
        if name.ends_with('.') {
            return vec![as_it_stands()];
        }
        let dots = name.matches('.').count();
        let mut candidates = Vec::new();
        if dots >= self.ndots {
            candidates.push(as_it_stands());
        }
        for domain in &self.search {
            match domain.trim_matches('.') {
                // The root is a domain, too.
                "" if candidates.iter().any(|other| other.as_it_stands) => {}
                "" => candidates.push(as_it_stands()),
                domain => candidates.push(SearchedName { name: format!("{name}.{domain}"), as_it_stands: false }),
            }
        }
        let asked = candidates.iter().any(|other| other.as_it_stands);
        if !asked && (dots > 0 || candidates.is_empty() || !self.no_tld_query) {
            candidates.push(as_it_stands());
        }
        candidates
    }
}

/// The server that a word names. A scope is the number or the name of an interface.
fn server(word: &str) -> Option<SocketAddr> {
    let word = word.split([';', '#']).next()?;
    let Some((address, scope)) = word.split_once('%') else {
        return Some(SocketAddr::new(IpAddr::from_str(word).ok()?, PORT));
    };
    let index = || fs::read_to_string(format!("/sys/class/net/{scope}/ifindex")).ok();
    let named = || (!scope.contains('/')).then(index).flatten()?.trim().parse().ok();
    let scope = scope.parse().ok().or_else(named)?;
    Some(SocketAddrV6::new(address.parse().ok()?, PORT, 0, scope).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Conf {
        Conf::read(text.as_bytes(), None)
    }

    fn names(conf: &Conf, name: &str) -> Vec<String> {
        conf.candidates(name).into_iter().map(|candidate| candidate.name).collect()
    }

    #[test]
    fn what_cannot_be_read_is_passed_over() {
        let conf = read(
            "# nameserver 10.0.0.8\n; nameserver 10.0.0.7\n nameserver 10.0.0.6\nnameserver\nnameserver x\nnameservers 10.0.0.5\n\
             nameserver 10.0.0.1 # ours\nnameserver\t10.0.0.2;x\nnameserver 10.0.0.3\r\nsearch a b..c\noptions\noptions ndots:x timeout:-1 attempts:0 \
             what:ever ndots: \u{7f}\nsortlist 1.2.3.4\nnameserver ::1\nnameserver 10.0.0.4\noptions ndots:99 attempts:99999999999999999999\n",
        );
        let wanted: Vec<SocketAddr> = ["10.0.0.1:53", "10.0.0.2:53", "[::1]:53"].map(|it| it.parse().unwrap()).into();
        assert_eq!(conf.servers, wanted);
        assert_eq!((conf.ndots, conf.timeout.as_secs(), conf.attempts), (15, 1, 5));
        assert_eq!(conf.search, ["a", "b..c"]);
        let nothing = Conf::read(b"\xff\xfe\0", None);
        assert!(conf.named && !nothing.named);
        assert_eq!(nothing.servers, ["127.0.0.1:53".parse::<SocketAddr>().unwrap()]);
    }

    #[test]
    fn a_scope_is_a_number_or_an_interface() {
        let of = |text: &str| read(text).servers[0].to_string();
        assert_eq!(of("nameserver fe80::1%7\n"), "[fe80::1%7]:53");
        assert_eq!(of("nameserver fe80::1%lo\n"), "[fe80::1%1]:53");
        assert_eq!(of("nameserver fe80::1%../../lo\nnameserver 10.0.0.1%lo\n"), "127.0.0.1:53", "neither is one");
    }

    #[test]
    fn the_search_list_comes_before_or_after_the_name_by_its_dots() {
        let conf = read("domain x\nsearch a.test b.test.\n");
        assert_eq!(names(&conf, "forge"), ["forge.a.test", "forge.b.test", "forge"]);
        assert_eq!(names(&conf, "forge.acme"), ["forge.acme", "forge.acme.a.test", "forge.acme.b.test"]);
        assert_eq!(names(&conf, "forge."), ["forge."]);
        let many = read("search a.test\noptions ndots:5\n");
        assert_eq!(names(&many, "api.github.com"), ["api.github.com.a.test", "api.github.com"]);
        assert_eq!(names(&read("search a\ndomain b c\n"), "x"), ["x.b", "x"], "the last of them");
        assert_eq!(names(&read("search a . b\n"), "x"), ["x.a", "x", "x.b"], "the root stands where it is named");
        assert_eq!(names(&read("search a\noptions no-tld-query\n"), "x"), ["x.a"]);
        assert_eq!(names(&Conf::read(b"", Some("box.corp.test")), "x"), ["x.corp.test", "x"]);
        assert_eq!(names(&Conf::read(b"search a", Some("box.corp.test")), "x"), ["x.a", "x"]);
        assert_eq!(names(&Conf::read(b"", Some("box")), "x"), ["x"]);
    }
}
