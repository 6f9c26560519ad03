//! getAcl, setAcl, addauth, whoami; and ACLs as text.

use proto::{Acl, ErrorCode, Id, Perms, Reply, Request};

use super::command::{Command, Done, strange};
use super::problem::Problem;
use super::text;
use super::tree;
use super::words::Words;

/// The letters of permissions, in the order in which they are shown.
const LETTERS: [(char, i32); 5] = [
    ('c', Perms::CREATE),
    ('d', Perms::DELETE),
    ('r', Perms::READ),
    ('w', Perms::WRITE),
    ('a', Perms::ADMIN),
];

/// Reads `SCHEME:ID:PERMISSIONS,...`; an id may hold colons and commas.
pub(super) fn parse(given: &str) -> Result<Vec<Acl>, Problem> {
    let mut list = Vec::new();
    let mut entry = String::new();
    for part in given.split(',') {
        if !entry.is_empty() {
            entry.push(',');
        }
        entry.push_str(part);
        // A comma that is not behind permissions belongs to an id, such as a certificate's subject.
        if let Some(acl) = parse_one(&entry) {
            list.push(acl);
            entry.clear();
        }
    }
    if !entry.is_empty() || list.is_empty() {
        let shown = text::line(if entry.is_empty() { given } else { &entry });
        let form = "scheme:id:perm, with perm of the letters cdrwa";
        return Err(format!("{shown} does not have the form {form}").into());
    }
    Ok(list)
}

fn parse_one(entry: &str) -> Option<Acl> {
    let (who, letters) = entry.rsplit_once(':')?;
    let (scheme, id) = who.split_once(':')?;
    let mut perms = 0;
    for letter in letters.chars() {
        perms |= LETTERS.iter().find(|(known, _)| *known == letter)?.1;
    }
    (!scheme.is_empty()).then(|| Acl { perms, id: Id::new(scheme, id) })
}

fn letters(perms: i32) -> String {
    LETTERS.iter().filter(|(_, bit)| perms & bit != 0).map(|(letter, _)| letter).collect()
}

pub(super) async fn get(cx: &mut Command<'_>, words: &Words) -> Done {
    let path = cx.inside(words.arg(0))?;
    let (acl, stat) = match cx.ask(&path, Request::GetAcl { path: path.clone() }).await? {
        Reply::Acl(acl, stat) => (acl, stat),
        other => return Err(strange(&other)),
    };
    for Acl { perms, id } in acl {
        writeln!(cx.out, "'{},'{}", text::line(&id.scheme), text::line(&id.id))?;
        writeln!(cx.out, ": {}", letters(perms))?;
    }
    if words.has("-s") {
        text::stat(cx.out, &stat)?;
    }
    Ok(())
}

pub(super) async fn set(cx: &mut Command<'_>, words: &Words) -> Done {
    let path = cx.inside(words.arg(0))?;
    let acl = parse(words.arg(1))?;
    let version = words.number("-v")?.unwrap_or(-1);
    let request = |path: &str| {
        let (path, acl) = (path.to_owned(), acl.clone());
        Request::SetAcl { path, acl, version }
    };
    if words.has("-R") {
        return tree::each(cx, &path, async |cx, path| match cx.session.ask(request(path)).await {
            Ok(_) => Ok(()),
            Err(error) if error.is(ErrorCode::NoNode) => Ok(()),
            Err(error) => Err(Problem::Server(error, cx.outside(path).to_owned())),
        })
        .await;
    }
    match cx.ask(&path, request(&path)).await? {
        Reply::Stat(stat) if words.has("-s") => Ok(text::stat(cx.out, &stat)?),
        Reply::Stat(_) => Ok(()),
        other => Err(strange(&other)),
    }
}

pub(super) async fn authenticate(cx: &mut Command<'_>, words: &Words) -> Done {
    let secret = words.optional(1).unwrap_or_default();
    let answer = cx.session.authenticate(words.arg(0), secret.as_bytes()).await;
    answer.map_err(|error| Problem::Server(error, String::new()))
}

pub(super) async fn who(cx: &mut Command<'_>) -> Done {
    let mut infos = match cx.ask("", Request::WhoAmI).await? {
        Reply::WhoAmI(infos) => infos,
        other => return Err(strange(&other)),
    };
    infos.sort_by(|a, b| (&a.scheme, &a.user).cmp(&(&b.scheme, &b.user)));
    writeln!(cx.out, "Auth scheme: User")?;
    for info in infos {
        writeln!(cx.out, "{}: {}", text::line(&info.scheme), text::line(&info.user))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acls_as_text() {
        let acl = parse("world:anyone:r,digest:u:h=:cdrwa,x509:CN=a,O=b:w").expect("it is right");
        let shown =
            acl.iter().map(|acl| (acl.id.scheme.as_str(), acl.id.id.as_str(), letters(acl.perms)));
        let expected = [
            ("world", "anyone", "r".to_owned()),
            ("digest", "u:h=", "cdrwa".to_owned()),
            ("x509", "CN=a,O=b", "w".to_owned()),
        ];
        assert_eq!(shown.collect::<Vec<_>>(), expected);
        for wrong in ["", "world", "world:anyone", "world:anyone:x", "world:anyone:r,bogus"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
