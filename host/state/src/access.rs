//! Access control: who may do what, as ZooKeeper decides it (`ZooKeeperServer.checkACL`,
//! `PrepRequestProcessor.fixupACL`).

use std::net::IpAddr;

use proto::{Acl, ErrorCode, Id, Perms};

/// Whether somebody with these identities has any of these permissions.
pub fn allowed(acl: &[Acl], perms: i32, identities: &[Id]) -> bool {
    allowed_but(acl, perms, identities, |_| false)
}

/// The same, of an ACL without the entries whose schemes are left out.
pub(crate) fn allowed_but(
    acl: &[Acl],
    perms: i32,
    identities: &[Id],
    leaves_out: impl Fn(&str) -> bool,
) -> bool {
    acl.is_empty()
        || acl.iter().any(|entry| entry.perms & perms != 0 && is_anyone(&entry.id))
        || identities.iter().any(|id| id.scheme == "super")
        || acl.iter().any(|entry| {
            entry.perms & perms != 0
                && identities
                    .iter()
                    .any(|id| id.scheme == entry.id.scheme && matches(id, &entry.id))
                && !leaves_out(&entry.id.scheme)
        })
}

/// Whether an ACL that a client gave is [`Acl::world`]'s, with all permissions: nearly every one is.
pub(crate) fn is_open(acl: &[(i32, String, String)]) -> bool {
    let [(Perms::ALL, scheme, id)] = acl else { return false };
    scheme == "world" && id == "anyone"
}

fn is_anyone(id: &Id) -> bool {
    id.scheme == "world" && id.id == "anyone"
}

/// Whether an identity is one that an ACL entry of its scheme means.
fn matches(identity: &Id, entry: &Id) -> bool {
    match entry.scheme.as_str() {
        "ip" => ip_matches(&identity.id, &entry.id),
        // ZooKeeper's SASL provider lets the user `super` match every entry.
        "sasl" => identity.id == "super" || identity.id == entry.id,
        _ => identity.id == entry.id,
    }
}

fn ip_bits(address: IpAddr) -> (u128, u32) {
    match address.to_canonical() {
        IpAddr::V4(v4) => (u128::from(v4.to_bits()) << 96, 32),
        IpAddr::V6(v6) => (v6.to_bits(), 128),
    }
}

fn parse_network(text: &str) -> Option<(u128, u32, u32)> {
    let (address, bits) = match text.split_once('/') {
        Some((address, bits)) => (address, Some(bits.parse::<u32>().ok()?)),
        None => (text, None),
    };
    let (value, width) = ip_bits(address.parse().ok()?);
    let bits = bits.unwrap_or(width);
    (bits <= width).then_some((value, width, bits))
}

fn ip_matches(address: &str, network: &str) -> bool {
    let Some((value, width, bits)) = parse_network(network) else { return false };
    let Ok(address) = address.parse::<IpAddr>() else { return false };
    let (address, address_width) = ip_bits(address);
    let mask = if bits == 0 { 0 } else { u128::MAX << (128 - bits) };
    width == address_width && (address ^ value) & mask == 0
}

/// Whether an id may stand in an ACL under its scheme.
fn is_valid(id: &Id) -> bool {
    match id.scheme.as_str() {
        // As Java's split(":") sees it: exactly two parts, the last not empty.
        "digest" => id.id.split_once(':').is_some_and(|(_, hash)| {
            !hash.is_empty() && !hash.trim_end_matches(':').contains(':') && !hash.starts_with(':')
        }),
        "ip" => parse_network(&id.id).is_some(),
        // A Kerberos name, `name/host@realm`, or anything without an @.
        "sasl" => id.id.split_once('@').is_none_or(|(name, realm)| {
            name.matches('/').count() <= 1 && !realm.contains(['@', '/'])
        }),
        "x509" => !id.id.is_empty(),
        _ => false,
    }
}

/// The ACL to store for one that a client gave: without duplicates, `auth` replaced by who the
/// client is. Of the schemes that are not built in, it may name those of which `knows` holds.
///
/// # Errors
/// [`ErrorCode::InvalidAcl`] if it is empty, names an unknown scheme or an invalid id, or says
/// `auth` on a connection that has not authenticated.
pub fn resolve(
    acl: &[(i32, String, String)],
    identities: &[Id],
    knows: impl Fn(&str) -> bool,
) -> Result<Vec<Acl>, ErrorCode> {
    let mut resolved: Vec<Acl> = Vec::with_capacity(acl.len());
    let mut seen: Vec<&(i32, String, String)> = Vec::with_capacity(acl.len());
    for given in acl {
        if seen.contains(&given) {
            continue;
        }
        seen.push(given);
        let (perms, scheme, id) = given;
        let id = Id { scheme: scheme.clone(), id: id.clone() };
        if is_anyone(&id) {
            resolved.push(Acl { perms: *perms, id });
        } else if scheme == "auth" {
            let before = resolved.len();
            let authenticated = |id: &&Id| {
                matches!(id.scheme.as_str(), "digest" | "sasl" | "x509") || knows(&id.scheme)
            };
            resolved.extend(
                identities
                    .iter()
                    .filter(authenticated)
                    .map(|id| Acl { perms: *perms, id: id.clone() }),
            );
            if resolved.len() == before {
                return Err(ErrorCode::InvalidAcl);
            }
        } else if is_valid(&id) || knows(&id.scheme) {
            resolved.push(Acl { perms: *perms, id });
        } else {
            return Err(ErrorCode::InvalidAcl);
        }
    }
    if resolved.is_empty() { Err(ErrorCode::InvalidAcl) } else { Ok(resolved) }
}

/// What `getACL` shows: hashes of passwords only to those who may set the ACL.
pub fn masked(acl: &[Acl], identities: &[Id], skip_acl: bool) -> Vec<Acl> {
    if skip_acl || allowed(acl, Perms::ADMIN, identities) {
        return acl.to_vec();
    }
    acl.iter()
        .map(|entry| {
            let id = match (entry.id.scheme.as_str(), entry.id.id.split_once(':')) {
                ("digest", Some((user, _))) => Id::new("digest", format!("{user}:x")),
                _ => entry.id.clone(),
            };
            Acl { perms: entry.perms, id }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(entry: &str, address: &str) -> bool {
        let acl = [Acl { perms: Perms::READ, id: Id::new("ip", entry) }];
        allowed(&acl, Perms::READ, &[Id::new("ip", address)])
    }

    #[test]
    fn networks_match_by_their_prefix() {
        assert!(ip("127.0.0.1", "127.0.0.1"));
        assert!(ip("10.1.0.0/16", "10.1.255.3"));
        assert!(!ip("10.1.0.0/16", "10.2.0.1"));
        assert!(ip("0.0.0.0/0", "1.2.3.4"));
        assert!(ip("2001:db8::/32", "2001:db8:1::1"));
        assert!(!ip("2001:db8::/32", "2001:db9::1"));
        assert!(!ip("::/0", "1.2.3.4"));
    }

    #[test]
    fn super_passes_and_others_do_not() {
        let acl = [Acl { perms: Perms::READ, id: Id::new("digest", "a:b") }];
        assert!(allowed(&acl, Perms::READ, &[Id::new("digest", "a:b")]));
        assert!(!allowed(&acl, Perms::WRITE, &[Id::new("digest", "a:b")]));
        assert!(!allowed(&acl, Perms::READ, &[Id::new("digest", "a:c")]));
        assert!(allowed(&acl, Perms::WRITE, &[Id::new("super", "")]));
        assert!(allowed(&[], Perms::ALL, &[]));
    }

    #[test]
    fn resolving_an_acl() {
        let give = |scheme: &str, id: &str| (31, scheme.to_owned(), id.to_owned());
        let me = [Id::new("ip", "1.2.3.4"), Id::new("digest", "a:b")];
        assert_eq!(resolve(&[], &me, |_| false), Err(ErrorCode::InvalidAcl));
        assert_eq!(resolve(&[give("world", "all")], &me, |_| false), Err(ErrorCode::InvalidAcl));
        assert_eq!(resolve(&[give("digest", "a")], &me, |_| false), Err(ErrorCode::InvalidAcl));
        assert_eq!(resolve(&[give("ip", "300.1.1.1")], &me, |_| false), Err(ErrorCode::InvalidAcl));
        assert_eq!(resolve(&[give("auth", "")], &me[..1], |_| false), Err(ErrorCode::InvalidAcl));
        for (id, valid) in [("", true), ("a/b/c", true), ("a/b@c", true), ("a@b@c", false)] {
            assert_eq!(resolve(&[give("sasl", id)], &me, |_| false).is_ok(), valid, "{id}");
        }
        let auth =
            resolve(&[give("auth", ""), give("auth", "")], &me, |_| false).expect("authenticated");
        assert_eq!(auth, [Acl { perms: 31, id: Id::new("digest", "a:b") }]);
    }
}
