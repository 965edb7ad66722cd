//! Whom a request is of, by address: whoever has opened the connection, or, where that is a proxy that the settings trust,
//! whoever the proxy says. What anybody else says of it is not heard.

use std::net::{IpAddr, SocketAddr};

use actix_web::http::header::HeaderMap;
use ipnet::IpNet;

const FORWARDED_FOR: &str = "x-forwarded-for";

/// The proxies that are trusted.
#[derive(Debug, Default)]
pub struct Proxies(Vec<IpNet>);

impl Proxies {
    /// Those of `http.trusted_proxies`, which the settings' rules have let through.
    pub fn new(texts: &[String]) -> Proxies {
        let network = |text: &String| text.parse::<IpNet>().ok().or_else(|| Some(text.parse::<IpAddr>().ok()?.into()));
        Proxies(texts.iter().filter_map(network).collect())
    }

    /// The address that a request is of. Each proxy adds at the end of `X-Forwarded-For` from whom it has the request, so it
    /// is read from there as far as proxies are trusted: what stands before is what anybody could have sent.
    pub fn caller(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let mut caller = peer.to_canonical();
        if !self.trust(caller) {
            return caller;
        }
        let lines: Vec<&str> = headers.get_all(FORWARDED_FOR).map(|line| line.to_str().unwrap_or_default()).collect();
        for said in lines.iter().rev().flat_map(|line| line.rsplit(',')) {
            match address(said.trim()) {
                Some(said) => caller = said,
                None => return caller,
            }
            if !self.trust(caller) {
                return caller;
            }
        }
        caller
    }

    fn trust(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(&address))
    }
}

/// An address, of which some proxies write the port, too.
fn address(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let address = bare.parse().ok().or_else(|| text.parse::<SocketAddr>().ok().map(|address| address.ip()));
    address.map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::{HeaderName, HeaderValue};

    use super::*;

    fn caller(trusted: &[&str], peer: &str, lines: &[&str]) -> String {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(HeaderName::from_static(FORWARDED_FOR), HeaderValue::from_str(line).unwrap());
        }
        let trusted: Vec<String> = trusted.iter().map(|text| (*text).to_owned()).collect();
        Proxies::new(&trusted).caller(peer.parse().unwrap(), &headers).to_string()
    }

    #[test]
    fn a_caller_is_who_the_last_trusted_proxy_says_and_nobody_whom_a_caller_makes_up() {
        let proxies = &["10.0.0.0/8", "::1"][..];
        for (trusted, peer, lines, address) in [
            (&[][..], "10.0.0.1", &["1.1.1.1"][..], "10.0.0.1"),
            (proxies, "192.168.0.1", &["1.1.1.1"], "192.168.0.1"),
            (proxies, "10.0.0.1", &[], "10.0.0.1"),
            (proxies, "10.0.0.1", &["1.1.1.1"], "1.1.1.1"),
            (proxies, "10.0.0.1", &["6.6.6.6, 1.1.1.1"], "1.1.1.1"),
            (proxies, "10.0.0.1", &["6.6.6.6", "1.1.1.1 , 10.0.0.2"], "1.1.1.1"),
            (proxies, "10.0.0.1", &["6.6.6.6, 10.0.0.3, 1.1.1.1", "10.0.0.2"], "1.1.1.1"),
            (proxies, "10.0.0.1", &["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
            (proxies, "10.0.0.1", &["1.1.1.1, unknown"], "10.0.0.1"),
            (proxies, "10.0.0.1", &["1.1.1.1,"], "10.0.0.1"),
            (proxies, "10.0.0.1", &["1.1.1.1:4711"], "1.1.1.1"),
            (proxies, "::1", &["[2001:db8::1]:4711"], "2001:db8::1"),
            (proxies, "::1", &["[2001:db8::1]"], "2001:db8::1"),
            (proxies, "::ffff:10.0.0.1", &["::ffff:1.1.1.1"], "1.1.1.1"),
        ] {
            assert_eq!(caller(trusted, peer, lines), address, "{trusted:?} {peer} {lines:?}");
        }
    }
}
