//! Settings that all forges have.

use super::{Row, row};

const HOW: &str = "write http://host:port, or http://user:password@host:port";
const CA: &str = "put a certificate there as PEM (-----BEGIN CERTIFICATE-----) or DER, or unset it";

const fn proxy(address: &'static [(&'static str, &'static str)], words: &'static [&'static str]) -> Row {
    row(address, &["HTTPS_PROXY"], words, &[("HTTPS_PROXY", "http://user:pass%23word@proxy:3128")])
}

pub(super) const ROWS: &[Row] = &[
    row(
        &[("OSCR_LOG", "BYTES \\377")],
        &["OSCR_LOG"],
        &["is not UTF-8 text", "write it in UTF-8"],
        &[("OSCR_LOG", "json")],
    ),
    row(
        &[("RUNNER_LABELS", "linux,ghp_0123456789abcdefghijABCDEFGHIJ012345")],
        &["RUNNER_LABELS"],
        &[
            "holds a password or a token, which whoever looks at this container can read",
            "take it out, and revoke it: CREDENTIAL_FILE is for the token",
        ],
        &[("RUNNER_LABELS", "linux")],
    ),
    row(
        &[
            ("OSCR_ALLOW_FIXED_NAME", "maybe"),
            ("OSCR_ALLOW_FORKS", "y"),
            ("OSCR_DOCKERD", "if needed"),
            ("OSCR_DOCKER_GID0", "2"),
            ("OSCR_LOCK_ALLOW_NFS", "nfs"),
            ("OSCR_SUDO", "sudo"),
            ("RUNNER_PERSISTENT", "ture"),
        ],
        &[
            "OSCR_ALLOW_FIXED_NAME",
            "OSCR_ALLOW_FORKS",
            "OSCR_DOCKERD",
            "OSCR_DOCKER_GID0",
            "OSCR_LOCK_ALLOW_NFS",
            "OSCR_SUDO",
            "RUNNER_PERSISTENT",
        ],
        &["\"ture\" is neither true nor false", "use true or false (yes, no, on, off, 1, 0)"],
        &[
            ("OSCR_ALLOW_FIXED_NAME", "yes"),
            ("OSCR_ALLOW_FORKS", "false"),
            ("OSCR_DOCKERD", "off"),
            ("OSCR_DOCKER_GID0", "0"),
            ("OSCR_LOCK_ALLOW_NFS", "1"),
            ("OSCR_SUDO", "no"),
            ("RUNNER_PERSISTENT", "true"),
        ],
    ),
    row(
        &[
            ("OSCR_DOCKER_WAIT", "-1"),
            ("OSCR_JOB_MAX", "10 fortnights"),
            ("OSCR_JOB_OFFLINE_TIMEOUT", "long"),
            ("OSCR_KILL_TIMEOUT", "30m30"),
            ("OSCR_LOCK_HOOK_TIMEOUT", "1y"),
            ("OSCR_LOCK_IDLE", "1,5"),
            ("OSCR_LOCK_TIMEOUT", "?"),
            ("OSCR_MAX_IDLE", "never"),
            ("OSCR_MIN_UPTIME", "8d"),
            ("OSCR_OFFLINE_TIMEOUT", "m"),
            ("OSCR_START_JITTER", "some"),
            ("OSCR_STOP_TIMEOUT", "soon"),
            ("OSCR_WATCH_INTERVAL", "often"),
            ("OSCR_WORKER_TIMEOUT", "1 min 2"),
        ],
        &[
            "OSCR_DOCKER_WAIT",
            "OSCR_JOB_MAX",
            "OSCR_JOB_OFFLINE_TIMEOUT",
            "OSCR_KILL_TIMEOUT",
            "OSCR_LOCK_HOOK_TIMEOUT",
            "OSCR_LOCK_IDLE",
            "OSCR_LOCK_TIMEOUT",
            "OSCR_MAX_IDLE",
            "OSCR_MIN_UPTIME",
            "OSCR_OFFLINE_TIMEOUT",
            "OSCR_START_JITTER",
            "OSCR_STOP_TIMEOUT",
            "OSCR_WATCH_INTERVAL",
            "OSCR_WORKER_TIMEOUT",
        ],
        &[
            "\"soon\" is not a duration",
            "write seconds (90), or numbers with s, m, h or d (30m, 1h 30m), a week at most",
        ],
        &[
            ("OSCR_DOCKER_WAIT", "0"),
            ("OSCR_JOB_MAX", "7d"),
            ("OSCR_JOB_OFFLINE_TIMEOUT", "1h 30m"),
            ("OSCR_KILL_TIMEOUT", "90"),
            ("OSCR_LOCK_HOOK_TIMEOUT", "30m"),
            ("OSCR_LOCK_IDLE", "90s"),
            ("OSCR_LOCK_TIMEOUT", "1h"),
            ("OSCR_MAX_IDLE", "0"),
            ("OSCR_MIN_UPTIME", "0"),
            ("OSCR_OFFLINE_TIMEOUT", "3m"),
            ("OSCR_START_JITTER", "0"),
            ("OSCR_STOP_TIMEOUT", "30m"),
            ("OSCR_WATCH_INTERVAL", "10m"),
            ("OSCR_WORKER_TIMEOUT", "1m 2s"),
        ],
    ),
    row(
        &[("OSCR_CACHE_MAX", "much"), ("OSCR_MIN_FREE", "-5g")],
        &["OSCR_CACHE_MAX", "OSCR_MIN_FREE"],
        &["\"much\" is no number of bytes", "write bytes, or a number with k, m, g or t (500m, 2g)"],
        &[("OSCR_CACHE_MAX", "2g"), ("OSCR_MIN_FREE", "1048576")],
    ),
    row(
        &[
            ("OSCR_LOCK_SCOPE", "jobs"),
            ("OSCR_LOCK_TELL", "nobody"),
            ("OSCR_LOG", "xml"),
            ("OSCR_LOG_LEVEL", "loud"),
            ("OSCR_TAINT", "ignore"),
        ],
        &["OSCR_LOCK_SCOPE", "OSCR_LOCK_TELL", "OSCR_LOG", "OSCR_LOG_LEVEL", "OSCR_TAINT"],
        &[
            "\"loud\" is not known",
            "use one of: job, listener",
            "use one of: owner, all",
            "use one of: text, json",
            "use one of: error, warn, info, debug",
            "use one of: refuse, warn, off",
        ],
        &[
            ("OSCR_LOCK_SCOPE", "listener"),
            ("OSCR_LOCK_TELL", "all"),
            ("OSCR_LOG", "json"),
            ("OSCR_LOG_LEVEL", "info"),
            ("OSCR_TAINT", "off"),
        ],
    ),
    row(
        &[("CI_PROVIDER", "gitmill")],
        &["CI_PROVIDER"],
        &["\"gitmill\" is not known", "use one of: github, azure-devops"],
        &[("CI_PROVIDER", "PROVIDER_HERE")],
    ),
    row(
        &[("RUNNER_LABELS", "linux,big"), ("LABELS", "linux")],
        &["RUNNER_LABELS"],
        &["RUNNER_LABELS and LABELS say different things", "keep one of them"],
        &[("LABELS", "")],
    ),
    row(
        &[("OSCR_CACHE_DIRS", "tools,/"), ("RUNNER_TOOL_CACHE", "/work/../_tool")],
        &["OSCR_CACHE_DIRS", "OSCR_CACHE_DIRS", "RUNNER_TOOL_CACHE"],
        &["tools is not an absolute path below /", "write /work/_tool, say"],
        &[("OSCR_CACHE_DIRS", "ROOTwork/_tool"), ("RUNNER_TOOL_CACHE", "ROOTwork/_tool")],
    ),
    row(
        &[("DOCKER_HOST", "docker:2375")],
        &["DOCKER_HOST"],
        &[
            "\"docker:2375\" is neither unix:///path nor tcp://host:port",
            "write unix:///run/docker.sock or tcp://docker:2375",
        ],
        &[("DOCKER_HOST", "tcp://docker:2375"), ("OSCR_DOCKER_WAIT", "0")],
    ),
    row(
        &[("DOCKER_HOST", "unix://docker.sock")],
        &["DOCKER_HOST"],
        &["\"unix://docker.sock\" names no absolute path", "write unix:///run/docker.sock"],
        &[("DOCKER_HOST", "unix:///run/docker.sock"), ("OSCR_DOCKER_WAIT", "0")],
    ),
    row(
        &[("DOCKER_HOST", "tcp://docker:2375"), ("OSCR_DOCKERD", "true"), ("OSCR_DOCKER_WAIT", "0")],
        &["OSCR_DOCKERD"],
        &["and DOCKER_HOST name two engines", "keep one of them"],
        &[("OSCR_DOCKERD", "")],
    ),
    row(
        &[("OSCR_DOCKERD_MTU", "67")],
        &["OSCR_DOCKERD_MTU"],
        &["\"67\" is no MTU", "write a number such as 1400"],
        &[("OSCR_DOCKERD_MTU", "1400")],
    ),
    row(
        &[("RUNNER_LOCK_DIR", "locks"), ("RUNNER_RESOURCE_ID", "board-1")],
        &["RUNNER_LOCK_DIR"],
        &["is not an absolute path", "write /var/lock/oscr, and mount it"],
        &[("/locks", "DIRECTORY"), ("RUNNER_LOCK_DIR", "ROOTlocks")],
    ),
    row(
        &[("/locks", "DIRECTORY"), ("RUNNER_LOCK_DIR", "ROOTlocks"), ("RUNNER_RESOURCE_ID", "-board")],
        &["RUNNER_RESOURCE_ID"],
        &[
            "is no resource id: use letters, digits, dots, dashes and underscores, at most 64, beginning with a letter or digit",
            "write board-1, or a,b for all of several, or a|b for any",
        ],
        &[("RUNNER_RESOURCE_ID", "board-1")],
    ),
    row(
        &[("/locks", "DIRECTORY"), ("RUNNER_LOCK_DIR", "ROOTlocks"), ("RUNNER_RESOURCE_ID", "a,b|c")],
        &["RUNNER_RESOURCE_ID"],
        &["\",\" (all of them) and \"|\" (any one of them) cannot be mixed", "a,b for all of several"],
        &[("RUNNER_RESOURCE_ID", "a,b")],
    ),
    row(
        &[("/locks", "DIRECTORY"), ("RUNNER_LOCK_DIR", "ROOTlocks"), ("RUNNER_RESOURCE_ID", "a|b|a")],
        &["RUNNER_RESOURCE_ID"],
        &["a is named twice", "a|b for any"],
        &[("RUNNER_RESOURCE_ID", "a|b")],
    ),
    row(
        &[("/locks", "DIRECTORY"), ("RUNNER_LOCK_DIR", "ROOTlocks"), ("RUNNER_RESOURCE_ID", "MANY_BOARDS")],
        &["RUNNER_RESOURCE_ID"],
        &["names more than 64 resources", "name fewer"],
        &[("RUNNER_RESOURCE_ID", "b1,b2")],
    ),
    row(
        &[("/etc/ca.pem", "DIRECTORY"), ("OSCR_CA_FILE", "ROOTetc/ca.pem")],
        &["OSCR_CA_FILE"],
        &[
            "etc/ca.pem is a directory",
            "name the file in it; where Docker made the directory, the file that should be mounted is not on the host",
        ],
        &[("/etc/ca.pem/ours.pem", "THE_CA"), ("OSCR_CA_FILE", "ROOTetc/ca.pem/ours.pem")],
    ),
    row(
        &[("OSCR_CA_FILE", "ROOTetc/ca.pem")],
        &["OSCR_CA_FILE"],
        &["etc/ca.pem cannot be read: No such file", "mount a file there, or unset it"],
        &[("/etc/ca.pem", "THE_CA")],
    ),
    row(
        &[("/etc/ca.pem", "EMPTY"), ("OSCR_CA_FILE", "ROOTetc/ca.pem")],
        &["OSCR_CA_FILE"],
        &["etc/ca.pem is empty", CA],
        &[("/etc/ca.pem", "THE_CA")],
    ),
    row(
        &[("/etc/ca.pem", "of ours"), ("OSCR_CA_FILE", "ROOTetc/ca.pem")],
        &["OSCR_CA_FILE"],
        &["etc/ca.pem has no certificate in it that can be used", CA],
        &[("OSCR_CA_FILE", "")],
    ),
    row(
        &[("/etc/ca.pem", "-----BEGIN PKCS7-----\nAAAA\n-----END PKCS7-----\n"), ("OSCR_CA_FILE", "ROOTetc/ca.pem")],
        &["OSCR_CA_FILE"],
        &[
            "has no certificate in it",
            "take the certificates out of it (openssl pkcs7 -print_certs -in FILE), or unset it",
        ],
        &[("/etc/ca.pem", "THE_CA")],
    ),
    row(
        &[("/etc/ca.pem", "0\u{6}\u{1}\u{1}"), ("OSCR_CA_FILE", "ROOTetc/ca.pem")],
        &["OSCR_CA_FILE"],
        &["take the certificates out of it (openssl pkcs7 -inform der -print_certs -in FILE), or unset it"],
        &[("/etc/ca.pem", "THE_CA")],
    ),
    row(
        &[("/etc/ca.pem", "0\u{1}\u{2}\u{1}\u{3}"), ("OSCR_CA_FILE", "ROOTetc/ca.pem")],
        &["OSCR_CA_FILE"],
        &["take the certificates out of it (openssl pkcs12 -nokeys -in FILE), or unset it"],
        &[("/etc/ca.pem", "THE_CA")],
    ),
    row(
        &[("OSCR_METRICS_ADDR", "9464")],
        &["OSCR_METRICS_ADDR"],
        &[
            "\"9464\" is no address with a port",
            "write 0.0.0.0:9464 for all of the container's addresses, or 127.0.0.1:9464 for itself alone",
        ],
        // The host's ports are those of all tests.
        &[("OSCR_METRICS_ADDR", "127.0.0.1:0")],
    ),
    row(
        &[("OSCR_METRICS_FILE", "oscr.prom")],
        &["OSCR_METRICS_FILE"],
        &[
            "oscr.prom is not the absolute path of a file",
            "mount the collector's directory and name it, such as /var/lib/oscr-metrics",
        ],
        &[("/var/lib/oscr-metrics", "DIRECTORY"), ("OSCR_METRICS_FILE", "ROOTvar/lib/oscr-metrics")],
    ),
    row(
        &[("RUNNER_LABELS", "linux,LONG_LABEL,a\tb")],
        &["RUNNER_LABELS", "RUNNER_LABELS"],
        &["is no label", "use words of 256 characters at most, separated by commas"],
        &[("RUNNER_LABELS", "linux,b")],
    ),
    row(
        &[("RUNNER_LABELS", "linux"), ("OSCR_ADD_LABELS_A", "a\tb"), ("OSCR_ADD_LABELS_B", "LONG_LABEL,b")],
        &["OSCR_ADD_LABELS_A", "OSCR_ADD_LABELS_B"],
        &["is no label", "use words of 256 characters at most, separated by commas"],
        &[("OSCR_ADD_LABELS_A", "a"), ("OSCR_ADD_LABELS_B", "b")],
    ),
    row(
        &[("RUNNER_WORKDIR", "_work")],
        &["RUNNER_WORKDIR"],
        &[
            "_work is not an absolute path below /",
            "use a directory that nothing else uses, such as /work: it is wiped",
        ],
        &[("RUNNER_WORKDIR", "ROOTwork")],
    ),
    row(
        &[("EPHEMERAL", "maybe")],
        &["EPHEMERAL"],
        &["\"maybe\" is neither true nor false", "use true or false"],
        &[("EPHEMERAL", "true")],
    ),
    row(
        &[("EPHEMERAL", "true"), ("RUNNER_PERSISTENT", "true")],
        &["RUNNER_PERSISTENT"],
        &["and EPHEMERAL contradict each other", "keep RUNNER_PERSISTENT only"],
        &[("EPHEMERAL", "")],
    ),
    row(
        &[("OSCR_AGENT_CACHE", "shared")],
        &["OSCR_AGENT_CACHE"],
        &["is not an absolute path", "write /var/cache/oscr/shared, and mount it"],
        &[("/var/cache/oscr/shared", "DIRECTORY"), ("OSCR_AGENT_CACHE", "ROOTvar/cache/oscr/shared")],
    ),
    row(
        &[("OSCR_AGENT_UPDATE", "weekly")],
        &["OSCR_AGENT_UPDATE"],
        &["\"weekly\" is neither auto, nor true, nor false", "use auto, true or false"],
        &[("OSCR_AGENT_UPDATE", "auto")],
    ),
    row(
        &[("RUNNER_NAME", "one")],
        &["RUNNER_NAME"],
        &[
            "replicas with one name take each other's registration",
            "use RUNNER_NAME_PREFIX, or set OSCR_ALLOW_FIXED_NAME=true if only one container has this name",
        ],
        &[("OSCR_ALLOW_FIXED_NAME", "true")],
    ),
    row(
        &[("OSCR_ALLOW_FIXED_NAME", "true"), ("RUNNER_NAME", "one"), ("RUNNER_NAME_PREFIX", "all")],
        &["RUNNER_NAME"],
        &["and RUNNER_NAME_PREFIX exclude each other", "keep one of them"],
        &[("RUNNER_NAME", "")],
    ),
    row(
        &[("OSCR_ALLOW_FIXED_NAME", "true"), ("RUNNER_NAME", "my runner")],
        &["RUNNER_NAME"],
        &["\"my runner\" is no name for a runner", "use at most 64 letters, digits, dots, dashes and underscores"],
        &[("RUNNER_NAME", "my_runner.1-a")],
    ),
    row(
        &[("RUNNER_NAME_PREFIX", "a-prefix-that-is-longer-than-forty-letters")],
        &["RUNNER_NAME_PREFIX"],
        &["is no name for a runner", "use at most 40 letters"],
        &[("RUNNER_NAME_PREFIX", "a-prefix-of-forty-letters-is-no-more-so-")],
    ),
    row(
        &[("RUNNER_NAME_PREFIX", "-oscr")],
        &["RUNNER_NAME_PREFIX"],
        &["\"-oscr\" is no name for a runner", "dots, dashes and underscores"],
        &[("RUNNER_NAME_PREFIX", "oscr")],
    ),
    proxy(&[("HTTPS_PROXY", "proxy:3128")], &["it is no proxy URL: it does not begin with http://", HOW]),
    proxy(
        &[("HTTPS_PROXY", "socks5://proxy:1080")],
        &[
            "it is the address of a SOCKS proxy, which neither OSCR nor the agents can use",
            "name an HTTP proxy: http://host:port",
        ],
    ),
    // The name that is given is told: a second one would not be what programs take.
    row(
        &[("https_proxy", "ftp://proxy:21")],
        &["https_proxy"],
        &["it is no proxy URL: it begins neither with http:// nor with https://", HOW],
        &[("https_proxy", "http://user:password@proxy:3128")],
    ),
    row(
        &[("LABELS", "linux,a\tb")],
        &["LABELS"],
        &["\"a\\tb\" is no label", "separated by commas"],
        &[("LABELS", "linux,b")],
    ),
    proxy(
        &[("HTTPS_PROXY", "http://user:pass#word@proxy:3128")],
        &[
            "the user or the password in it has characters that end or change an address (#)",
            "write them percent-encoded (%23 for #), and every % of it that is meant as such as %25",
        ],
    ),
    proxy(&[("HTTPS_PROXY", "http://:3128")], &["it names no host", HOW]),
    proxy(
        &[("HTTPS_PROXY", "http://us er:pass@proxy:3128")],
        &["characters that end or change an address (a blank)", "write them percent-encoded (%20 for a blank)"],
    ),
    proxy(
        &[("HTTPS_PROXY", "http://proxy:99999")],
        &["what follows its last colon is no port, which is a number from 1 to 65535", HOW],
    ),
    proxy(
        &[("HTTPS_PROXY", "http://proxy/rules.pac")],
        &[
            "there is more in it than a host and a port, and a proxy has no path (a file of rules, .pac, is for browsers)",
            HOW,
        ],
    ),
    proxy(&[("HTTPS_PROXY", "http://[proxy]:3128")], &["what it names is no host", HOW]),
];
