//! The table: files, what servers say, and what comes of it.

use hickory_proto::op::ResponseCode;

use super::server::Say::{self, Alias, Astray, Code, Half, Have, Lame, Noise, Nothing, TooLong, Unread};
use super::server::Zone;

const SERVFAIL: Say = Code(ResponseCode::ServFail);
const REFUSED: Say = Code(ResponseCode::Refused);
const NOTIMP: Say = Code(ResponseCode::NotImp);
const NXDOMAIN: Say = Code(ResponseCode::NXDomain);
const EMPTY: Say = Have(&[]);
const ONE: Say = Have(&["10.0.0.1"]);
const TWO: Say = Have(&["10.0.0.2"]);
const BOTH: Say = Have(&["10.0.0.1", "fd00::1"]);

pub(super) struct Row {
    pub about: &'static str,
    pub conf: &'static str,
    pub hosts: &'static str,
    pub zones: &'static [(&'static str, Zone)],
    pub name: &'static str,
    pub found: &'static [&'static str],
    /// Who must not be asked by us.
    pub unasked: &'static [&'static str],
    /// What the C library finds instead, where we mean to differ.
    pub theirs: Option<&'static [&'static str]>,
}

const ROW: Row = Row {
    about: "",
    conf: "nameserver 127.0.0.2\n",
    hosts: "127.0.0.1 localhost\n",
    zones: &[],
    name: "forge.test",
    found: &["10.0.0.1"],
    unasked: &[],
    theirs: None,
};

/// Two servers, of which the first is asked first, with little patience.
const PAIR: &str = "nameserver 127.0.0.2\nnameserver 127.0.0.3\noptions timeout:1 attempts:1\n";

pub(super) const TABLE: &[Row] = &[
    Row {
        about: "one server",
        zones: &[("127.0.0.2", &[("forge.test", BOTH)])],
        found: &["10.0.0.1", "fd00::1"],
        ..ROW
    },
    Row { about: "only IPv6", zones: &[("127.0.0.2", &[("*", Have(&["fd00::7"]))])], found: &["fd00::7"], ..ROW },
    Row { about: "no such name", zones: &[("127.0.0.2", &[("*", NXDOMAIN)])], found: &[], ..ROW },
    Row { about: "a name without addresses", zones: &[("127.0.0.2", &[("*", EMPTY)])], found: &[], ..ROW },
    // Whom to ask.
    Row {
        about: "the first answers",
        conf: PAIR,
        zones: &[("127.0.0.2", &[("*", ONE)]), ("127.0.0.3", &[("*", NXDOMAIN)])],
        unasked: &["127.0.0.3"],
        ..ROW
    },
    Row {
        about: "the first knows that there is no such name",
        conf: PAIR,
        zones: &[("127.0.0.2", &[("*", NXDOMAIN)]), ("127.0.0.3", &[("*", ONE)])],
        found: &[],
        unasked: &["127.0.0.3"],
        ..ROW
    },
    Row { about: "the first is silent", conf: PAIR, zones: &[("127.0.0.3", &[("*", ONE)])], ..ROW },
    Row {
        about: "nobody listens at the first",
        conf: "nameserver 127.0.0.9\nnameserver 127.0.0.3\n",
        zones: &[("127.0.0.3", &[("*", ONE)])],
        ..ROW
    },
    Row { about: "nobody listens anywhere", conf: "nameserver 127.0.0.9\n", found: &[], ..ROW },
    Row {
        about: "the first fails",
        conf: PAIR,
        zones: &[("127.0.0.2", &[("*", SERVFAIL)]), ("127.0.0.3", &[("*", ONE)])],
        ..ROW
    },
    Row {
        about: "the first refuses",
        conf: PAIR,
        zones: &[("127.0.0.2", &[("*", REFUSED)]), ("127.0.0.3", &[("*", ONE)])],
        ..ROW
    },
    Row {
        about: "the first does not understand",
        conf: PAIR,
        zones: &[("127.0.0.2", &[("*", NOTIMP)]), ("127.0.0.3", &[("*", ONE)])],
        ..ROW
    },
    Row {
        about: "the first looks nothing up for others",
        conf: PAIR,
        zones: &[("127.0.0.2", &[("*", Lame)]), ("127.0.0.3", &[("*", ONE)])],
        ..ROW
    },
    Row {
        about: "the first cannot read questions (glibc takes its word for the end)",
        conf: PAIR,
        zones: &[("127.0.0.2", &[("*", Code(ResponseCode::FormErr))]), ("127.0.0.3", &[("*", ONE)])],
        theirs: Some(&[]),
        ..ROW
    },
    Row {
        about: "the first cannot repeat the question",
        conf: PAIR,
        zones: &[("127.0.0.2", &[("*", Unread(ResponseCode::FormErr))]), ("127.0.0.3", &[("*", ONE)])],
        ..ROW
    },
    Row {
        about: "everybody fails",
        conf: PAIR,
        zones: &[("127.0.0.2", &[("*", SERVFAIL)]), ("127.0.0.3", &[("*", REFUSED)])],
        found: &[],
        ..ROW
    },
    Row {
        about: "the third",
        conf: "nameserver 127.0.0.2\nnameserver 127.0.0.9\nnameserver 127.0.0.3\noptions timeout:1 attempts:1\n",
        zones: &[("127.0.0.2", &[("*", SERVFAIL)]), ("127.0.0.3", &[("*", ONE)])],
        ..ROW
    },
    Row {
        about: "the fourth is never asked",
        conf: "nameserver 127.0.0.9\nnameserver 127.0.0.9\nnameserver 127.0.0.2\nnameserver 127.0.0.3\noptions attempts:1\n",
        zones: &[("127.0.0.2", &[("*", SERVFAIL)]), ("127.0.0.3", &[("*", ONE)])],
        found: &[],
        unasked: &["127.0.0.3"],
        ..ROW
    },
    Row {
        about: "any of them",
        conf: "nameserver 127.0.0.2\nnameserver 127.0.0.3\noptions rotate timeout:1\n",
        zones: &[("127.0.0.2", &[("*", ONE)]), ("127.0.0.3", &[("*", SERVFAIL)])],
        ..ROW
    },
    Row { about: "nobody is named: this machine", conf: "# nothing\n", zones: &[("127.0.0.1", &[("*", ONE)])], ..ROW },
    Row { about: "a server by IPv6", conf: "nameserver ::1\n", zones: &[("::1", &[("*", ONE)])], ..ROW },
    Row {
        about: "a server with a scope",
        conf: "nameserver fe80::53%lo\n",
        zones: &[("fe80::53", &[("*", ONE)])],
        ..ROW
    },
    // Answers.
    Row {
        about: "no room by UDP",
        zones: &[("127.0.0.2", &[("*", TooLong(&["10.0.0.1", "fd00::1"]))])],
        found: &["10.0.0.1", "fd00::1"],
        ..ROW
    },
    Row {
        about: "by TCP at once",
        conf: "nameserver 127.0.0.2\noptions use-vc edns0 trust-ad\n",
        zones: &[("127.0.0.2", &[("*", BOTH)])],
        found: &["10.0.0.1", "fd00::1"],
        ..ROW
    },
    Row {
        about: "another name",
        zones: &[("127.0.0.2", &[("*", Alias("real_one.test", &["10.0.0.1", "10.0.0.2"]))])],
        found: &["10.0.0.1", "10.0.0.2"],
        ..ROW
    },
    Row {
        about: "another name for nothing",
        zones: &[("127.0.0.2", &[("*", Alias("real.test", &[]))])],
        found: &[],
        ..ROW
    },
    Row {
        about: "addresses of somebody else",
        zones: &[("127.0.0.2", &[("*", Astray(&["10.0.0.66"]))])],
        found: &[],
        ..ROW
    },
    Row {
        about: "nothing about IPv6",
        conf: "nameserver 127.0.0.2\noptions timeout:1 attempts:1\n",
        zones: &[("127.0.0.2", &[("*", Half(&["10.0.0.1"]))])],
        ..ROW
    },
    Row {
        about: "nothing about IPv6 is asked",
        conf: "nameserver 127.0.0.2\noptions no-aaaa\n",
        zones: &[("127.0.0.2", &[("*", BOTH)])],
        ..ROW
    },
    Row {
        about: "noise before the answer (glibc gives such a server up)",
        zones: &[("127.0.0.2", &[("*", Noise(&["10.0.0.1"]))])],
        theirs: Some(&[]),
        ..ROW
    },
    // Names.
    Row { about: "an underscore", name: "my_forge.test", zones: &[("127.0.0.2", &[("my_forge.test", ONE)])], ..ROW },
    Row { about: "capitals", name: "Forge.TEST", zones: &[("127.0.0.2", &[("forge.test", ONE)])], ..ROW },
    Row {
        about: "a dot at its end",
        name: "forge.test.",
        conf: "nameserver 127.0.0.2\nsearch corp.test\n",
        zones: &[("127.0.0.2", &[("forge.test", ONE), ("*", TWO)])],
        ..ROW
    },
    Row { about: "a short name", name: "forge", zones: &[("127.0.0.2", &[("forge", ONE)])], ..ROW },
    Row {
        about: "no name at all",
        name: "forge..test",
        zones: &[("127.0.0.2", &[("*", ONE)])],
        found: &[],
        unasked: &["127.0.0.2"],
        ..ROW
    },
    // Search lists.
    Row {
        about: "a short name is searched for first",
        name: "forge",
        conf: "nameserver 127.0.0.2\nsearch a.test b.test\n",
        zones: &[("127.0.0.2", &[("forge.b.test", ONE), ("forge", TWO), ("*", NXDOMAIN)])],
        ..ROW
    },
    Row {
        about: "a short name stands for itself at last",
        name: "forge",
        conf: "nameserver 127.0.0.2\nsearch a.test b.test\n",
        zones: &[("127.0.0.2", &[("forge", ONE), ("*", NXDOMAIN)])],
        ..ROW
    },
    Row {
        about: "a name with a dot stands for itself first",
        conf: "nameserver 127.0.0.2\nsearch a.test b.test\n",
        zones: &[("127.0.0.2", &[("forge.test", ONE), ("*", TWO)])],
        ..ROW
    },
    Row {
        about: "a name with a dot is searched for at last",
        conf: "nameserver 127.0.0.2\nsearch a.test b.test\n",
        zones: &[("127.0.0.2", &[("forge.test.b.test", ONE), ("*", NXDOMAIN)])],
        ..ROW
    },
    Row {
        about: "ndots, as in a cluster",
        conf: "search a.test b.test\nnameserver 127.0.0.2\noptions ndots:5\n",
        zones: &[("127.0.0.2", &[("forge.test", TWO), ("forge.test.b.test", ONE), ("*", NXDOMAIN)])],
        ..ROW
    },
    Row {
        about: "the last of domain and search counts",
        name: "forge",
        conf: "nameserver 127.0.0.2\nsearch a.test\ndomain b.test c.test\n",
        zones: &[(
            "127.0.0.2",
            &[("forge.b.test", ONE), ("forge.a.test", TWO), ("forge.c.test", TWO), ("*", NXDOMAIN)],
        )],
        ..ROW
    },
    Row {
        about: "the root in the search list",
        name: "forge",
        conf: "nameserver 127.0.0.2\nsearch a.test . b.test\n",
        zones: &[("127.0.0.2", &[("forge", ONE), ("forge.b.test", TWO), ("*", NXDOMAIN)])],
        ..ROW
    },
    Row {
        about: "a domain without the name, but with others",
        name: "forge",
        conf: "nameserver 127.0.0.2\nsearch a.test b.test\n",
        zones: &[("127.0.0.2", &[("forge.a.test", EMPTY), ("forge.b.test", ONE), ("*", NXDOMAIN)])],
        ..ROW
    },
    Row {
        about: "a domain that fails",
        name: "forge",
        conf: "nameserver 127.0.0.2\nsearch a.test b.test\noptions timeout:1 attempts:1\n",
        zones: &[("127.0.0.2", &[("forge.a.test", SERVFAIL), ("forge.b.test", ONE), ("*", NXDOMAIN)])],
        ..ROW
    },
    Row {
        about: "a domain that nobody answers for: the name as it stands is next",
        conf: "nameserver 127.0.0.2\nsearch a.test b.test\noptions ndots:5 timeout:1 attempts:1\n",
        zones: &[("127.0.0.2", &[("forge.test", ONE), ("forge.test.b.test", TWO), ("*", Nothing)])],
        ..ROW
    },
    Row {
        about: "a domain that nobody answers for, and more patience",
        conf: "nameserver 127.0.0.2\nsearch a.test b.test\noptions ndots:5 timeout:3\n",
        zones: &[("127.0.0.2", &[("forge.test", ONE), ("*", Nothing)])],
        ..ROW
    },
    Row {
        about: "a name that nobody answers for is searched for",
        conf: "nameserver 127.0.0.2\nsearch a.test\noptions timeout:1 attempts:1\n",
        zones: &[("127.0.0.2", &[("forge.test.a.test", ONE), ("*", Nothing)])],
        ..ROW
    },
    Row {
        about: "a domain that is refused: the name as it stands is next",
        name: "forge",
        conf: "nameserver 127.0.0.2\nsearch a.test b.test\noptions timeout:1 attempts:1\n",
        zones: &[("127.0.0.2", &[("forge", ONE), ("forge.b.test", TWO), ("*", REFUSED)])],
        ..ROW
    },
    Row {
        about: "malformed domains (glibc ends its search at the first)",
        name: "forge",
        conf: "nameserver 127.0.0.2\nsearch b..ad -- aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa b.test\n",
        zones: &[("127.0.0.2", &[("forge.b.test", ONE), ("*", NXDOMAIN)])],
        theirs: Some(&[]),
        ..ROW
    },
    Row {
        about: "a malformed domain and a name that stands for itself",
        conf: "nameserver 127.0.0.2\nsearch b..ad\noptions ndots:5\n",
        zones: &[("127.0.0.2", &[("forge.test", ONE), ("*", NXDOMAIN)])],
        ..ROW
    },
    // Files.
    Row {
        about: "what cannot be read",
        conf: "nameserver\nnameserver x\n nameserver 127.0.0.3\nnonsense\n\u{7f}\noptions ndots:x timeout: what\n; nameserver 127.0.0.3\n\
               #nameserver 127.0.0.3\nnameserver 127.0.0.2 # ours\nsortlist x\n",
        zones: &[("127.0.0.2", &[("*", ONE)]), ("127.0.0.3", &[("*", TWO)])],
        ..ROW
    },
    Row {
        about: "lines that end as on Windows name nobody",
        conf: "nameserver 127.0.0.2\r\noptions attempts:1\r\n",
        zones: &[("127.0.0.1", &[("*", ONE)]), ("127.0.0.2", &[("*", TWO)])],
        ..ROW
    },
    Row {
        about: "the hosts file decides",
        hosts: "127.0.0.1 localhost\n10.0.0.1 other forge.test # ours\n10.0.0.3\n10.0.0.2 Forge.Test third\n",
        zones: &[("127.0.0.2", &[("*", Have(&["10.0.0.7", "fd00::7"]))])],
        found: &["10.0.0.1", "10.0.0.2"],
        unasked: &["127.0.0.2"],
        ..ROW
    },
    Row {
        about: "an underscore in the hosts file",
        name: "my_forge",
        hosts: "fd00::5 x my_forge\nnonsense my_forge\n",
        found: &["fd00::5"],
        ..ROW
    },
    Row {
        about: "localhost is whoever the hosts file says",
        name: "localhost",
        found: &["127.0.0.1"],
        unasked: &["127.0.0.2"],
        ..ROW
    },
    Row {
        about: "localhost is nobody in particular",
        name: "localhost",
        hosts: "",
        zones: &[("127.0.0.2", &[("*", ONE)])],
        ..ROW
    },
    Row {
        about: "a dot at the end is none of the hosts file's",
        name: "forge.test.",
        hosts: "10.0.0.9 forge.test\n",
        zones: &[("127.0.0.2", &[("*", ONE)])],
        ..ROW
    },
];
