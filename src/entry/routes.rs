//! Where this container's network leads, by the kernel's tables of routes.

use std::fs;

/// The flags of a route: it is in use; it leads nowhere.
const UP: u32 = 0x1;
const REJECT: u32 = 0x200;

/// Where this network leads.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Routes {
    /// To anybody but ourselves.
    any: bool,
    /// To everybody.
    default: bool,
}

impl Routes {
    /// Those of this process' network, as the kernel has them now. One that cannot be read leads everywhere, for all that is known.
    pub(super) fn read() -> Self {
        match (fs::read_to_string("/proc/net/route"), fs::read_to_string("/proc/net/ipv6_route")) {
            (Ok(four), six) => Self::parse(&four, &six.unwrap_or_default()),
            (Err(_), _) => Self { any: true, default: true },
        }
    }

    fn parse(four: &str, six: &str) -> Self {
        let mut routes = Self::default();
        for line in four.lines().skip(1) {
            let fields: Vec<&str> = line.split_ascii_whitespace().collect();
            if let [interface, to, _, flags, _, _, _, mask, ..] = fields[..] {
                routes.add(interface, flags, to == "00000000" && mask == "00000000");
            }
        }
        for line in six.lines() {
            let fields: Vec<&str> = line.split_ascii_whitespace().collect();
            // What an interface has by itself leads to whoever is on the same wire, and no further.
            if let [to, length, .., flags, interface] = fields[..]
                && !["fe8", "ff0"].iter().any(|own| to.starts_with(own))
            {
                routes.add(interface, flags, length == "00");
            }
        }
        routes
    }

    fn add(&mut self, interface: &str, flags: &str, default: bool) {
        let flags = u32::from_str_radix(flags, 16).unwrap_or_default();
        if interface != "lo" && flags & UP != 0 && flags & REJECT == 0 {
            self.any = true;
            self.default |= default;
        }
    }

    /// Whether this network has no way out, and once had one. One that was made without a default route needs none.
    pub(super) fn is_lost_since(self, before: Self) -> bool {
        !self.any || (before.default && !self.default)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n";
    const BY_ETH0: &str = "eth0\t00000000\t010011AC\t0003\t0\t0\t0\t00000000\t0\t0\t0\n";
    const OF_ETH0: &str = "eth0\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\n";
    const REJECTED: &str = "*\t00000000\t00000000\t0201\t0\t0\t0\t00000000\t0\t0\t0\n";
    const NONE: &str = "00000000000000000000000000000000";

    fn six(to: &str, length: &str, flags: &str, interface: &str) -> String {
        format!("{to} {length} {NONE} 00 {NONE} 00000100 00000001 00000000 {flags} {interface:>8}\n")
    }

    fn routes(four: &[&str], six: &[String]) -> (bool, bool) {
        let Routes { any, default } = Routes::parse(&(HEAD.to_owned() + &four.concat()), &six.concat());
        (any, default)
    }

    #[test]
    fn routes_lead_to_everybody_to_somebody_or_nowhere() {
        assert_eq!(routes(&[BY_ETH0, OF_ETH0], &[]), (true, true));
        assert_eq!(routes(&[OF_ETH0], &[]), (true, false));
        assert_eq!(routes(&[], &[]), (false, false));
        assert_eq!(routes(&[REJECTED], &[]), (false, false));
        // The kernel's own, in every network.
        let own = [
            six(NONE, "00", "00200200", "lo"),
            six("00000000000000000000000000000001", "80", "80200001", "lo"),
            six("fe800000000000000000000000000000", "40", "00000001", "eth0"),
            six("ff000000000000000000000000000000", "08", "00000001", "eth0"),
        ];
        assert_eq!(routes(&[], &own), (false, false));
        assert_eq!(routes(&[], &[six(NONE, "00", "00000003", "eth0")]), (true, true));
        assert_eq!(routes(&[], &[six("20010db8000000000000000000000000", "40", "00000001", "eth0")]), (true, false));
        assert_eq!(Routes::parse("", "no route\n"), Routes::default());
    }

    #[test]
    fn a_way_out_is_lost_by_whoever_had_one() {
        let (all, some, none) =
            (Routes { any: true, default: true }, Routes { any: true, default: false }, Routes::default());
        assert!(none.is_lost_since(all) && some.is_lost_since(all) && none.is_lost_since(some));
        assert!(!all.is_lost_since(all) && !some.is_lost_since(some) && !all.is_lost_since(none));
    }

    #[test]
    fn our_own_routes_can_be_read() {
        let Routes { any, default } = Routes::read();
        assert!(any || !default);
    }
}
