//! Which addresses may be talked to: public ones, and those that the operator listed.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// IPv4 that is not a stranger's public address (the IANA registry of special-purpose addresses, RFC 6890), the translators of
/// 6to4, AS112 and AMT, and multicast.
const SPECIAL_V4: [([u8; 4], u8); 19] = [
    ([0, 0, 0, 0], 8),
    ([10, 0, 0, 0], 8),
    ([100, 64, 0, 0], 10),
    ([127, 0, 0, 0], 8),
    ([169, 254, 0, 0], 16),
    ([172, 16, 0, 0], 12),
    ([192, 0, 0, 0], 24),
    ([192, 0, 2, 0], 24),
    ([192, 31, 196, 0], 24),
    ([192, 52, 193, 0], 24),
    ([192, 88, 99, 0], 24),
    ([192, 168, 0, 0], 16),
    ([192, 175, 48, 0], 24),
    ([198, 18, 0, 0], 15),
    ([198, 51, 100, 0], 24),
    ([203, 0, 113, 0], 24),
    ([224, 0, 0, 0], 4),
    ([240, 0, 0, 0], 4),
    ([255, 255, 255, 255], 32),
];

/// The part of IPv6 that is given away. Loopback, mapped and translated IPv4 (`::ffff:0:0/96`, `64:ff9b::/96`,
/// `64:ff9b:1::/48`), unique local, link-local, site-local, multicast and segment routing all lie outside of it.
const GLOBAL_V6: (u16, u8) = (0x2000, 3);

/// What is special within it: protocol assignments with Teredo, documentation, 6to4, AS112.
const SPECIAL_V6: [([u16; 3], u8); 5] =
    [([0x2001, 0, 0], 23), ([0x2001, 0xdb8, 0], 32), ([0x2002, 0, 0], 16), ([0x2620, 0x4f, 0x8000], 48), ([0x3fff, 0, 0], 20)];

/// True for an address that anybody on the internet may have.
pub(crate) fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => !SPECIAL_V4
            .iter()
            .any(|(net, length)| Ipv4Net::new(Ipv4Addr::from(*net), *length).is_ok_and(|net| net.contains(&address))),
        IpAddr::V6(address) => {
            let within = |net: [u16; 3], length| {
                let [a, b, c] = net;
                Ipv6Net::new(Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0), length).is_ok_and(|net| net.contains(&address))
            };
            let (global, length) = GLOBAL_V6;
            within([global, 0, 0], length) && !SPECIAL_V6.iter().any(|(net, length)| within(*net, *length))
        }
    }
}

/// An address or network, with a port or any, that the operator allows though it is not public.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allowed {
    net: IpNet,
    port: Option<u16>,
}

/// Text that names no target.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is none of ADDRESS:PORT, ADDRESS and NETWORK, such as 10.0.0.5:443, 10.0.0.5 and 10.0.0.0/8")]
pub struct NoTarget(String);

impl FromStr for Allowed {
    type Err = NoTarget;
    fn from_str(text: &str) -> Result<Self, NoTarget> {
        let text = text.trim();
        if let Ok(address) = text.parse::<SocketAddr>() {
            return Ok(Self { net: address.ip().into(), port: Some(address.port()) });
        }
        let net = text.parse::<IpAddr>().map(IpNet::from).or_else(|_| text.parse::<IpNet>());
        net.map(|net| Self { net, port: None }).map_err(|_| NoTarget(text.to_owned()))
    }
}

impl fmt::Display for Allowed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.net)?;
        self.port.map_or(Ok(()), |port| write!(f, " port {port}"))
    }
}

impl Allowed {
    /// True for this machine itself.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        self.net.addr().is_loopback()
    }

    /// The address as it is: one that is mapped into IPv6 is never what was listed.
    pub(crate) fn covers(&self, address: IpAddr, port: Option<u16>) -> bool {
        self.net.contains(&address) && (port.is_none() || self.port.is_none() || self.port == port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p21_no_special_address_is_public() {
        for special in [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "100.64.0.1",
            "100.127.255.255",
            "127.0.0.1",
            "127.255.255.254",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.8",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.7",
            "203.0.113.9",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:8.8.8.8",
            "::127.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b::808:808",
            "64:ff9b:1::a00:1",
            "100::1",
            "2001::1",
            "2001:0:4136:e378::1",
            "2001:2::1",
            "2001:10::1",
            "2001:20::1",
            "2001:db8::1",
            "2002:7f00:1::",
            "2002:a00:1::1",
            "2620:4f:8000::1",
            "3fff::1",
            "3fff:fff::1",
            "5f00::1",
            "fc00::1",
            "fd12:3456::1",
            "fe80::1",
            "febf::1",
            "fec0::1",
            "ff02::1",
            "4000::1",
        ] {
            assert!(!is_public(special.parse().unwrap()), "{special}");
        }
    }

    #[test]
    fn addresses_that_anybody_may_have_are_public() {
        for public in [
            "1.1.1.1",
            "8.8.8.8",
            "9.255.255.255",
            "11.0.0.1",
            "100.63.255.255",
            "100.128.0.1",
            "126.255.255.255",
            "128.0.0.1",
            "172.15.255.255",
            "172.32.0.1",
            "192.167.255.255",
            "198.17.255.255",
            "223.255.255.255",
            "2606:4700::1111",
            "2a00:1450:4001::1",
            "2001:200::1",
            "2001:4860:4860::8888",
            "2003::1",
            "2400::1",
        ] {
            assert!(is_public(public.parse().unwrap()), "{public}");
        }
    }

    #[test]
    fn what_is_listed_is_allowed_as_it_is_listed() {
        let allowed = |text: &str, address: &str, port| text.parse::<Allowed>().unwrap().covers(address.parse().unwrap(), port);
        assert!(allowed("127.0.0.1:9000", "127.0.0.1", Some(9000)));
        assert!(!allowed("127.0.0.1:9000", "127.0.0.1", Some(9001)));
        assert!(!allowed("127.0.0.1:9000", "127.0.0.2", Some(9000)));
        assert!(!allowed("127.0.0.1:9000", "::ffff:127.0.0.1", Some(9000)));
        assert!(allowed("10.0.0.0/8", "10.2.3.4", Some(1)) && allowed("[::1]:1", "::1", Some(1)));
        assert!("127.0.0.1:9000".parse::<Allowed>().unwrap().is_loopback());
        for bad in ["", "localhost:80", "10.0.0.0/33", "127.1", "*"] {
            assert!(bad.parse::<Allowed>().is_err(), "{bad}");
        }
    }
}
