//! The console's files, as they lie in the binary (`web/dist/`, built by `make web`): which there are, what they are, and
//! compressed once. How they are answered is `api/ui.rs`'s.

use std::collections::HashMap;
use std::io::Write;
use std::sync::{Arc, LazyLock, PoisonError, RwLock};

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use rust_embed::RustEmbed;

/// The page that every address of the console shows.
const INDEX: &str = "index.html";
/// How links of the page to its files begin: at `/ui/` they lie beside it.
const BESIDE: &str = "\"./";
/// Addresses of the console are not deeper.
const MOST_DEEP: usize = 8;
/// Endings of files that pages load. What ends like this and is not there is no page: it would be read as a script.
const LOADED: [&str; 3] = [".js", ".css", ".map"];

/// A debug build reads the folder, so that a page is changed without a build of this program.
#[derive(RustEmbed)]
#[folder = "web/dist/"]
struct Dist;

/// A file of the console.
#[derive(Debug, PartialEq, Eq)]
pub struct UiFile {
    /// Its contents.
    pub bytes: Bytes,
    /// The same compressed.
    pub gzip: Bytes,
    /// Its media type.
    pub content_type: &'static str,
    /// Whether its name says what is in it, so that it is never another one.
    pub is_named_by_content: bool,
    digest: [u8; 32],
}

/// Files that were asked for, by name and depth; one that has changed in the folder is made again.
static MADE: LazyLock<RwLock<Made>> = LazyLock::new(RwLock::default);

type Made = HashMap<(String, usize), Arc<UiFile>>;

/// What is served below `/ui/`, by the rest of the path as it was asked for.
///
/// | rest | answer |
/// |---|---|
/// | the name of a file | that file |
/// | another name with a dot, or below a folder something that pages load | nothing |
/// | anything else | the page |
pub fn find(rest: &str) -> Option<Arc<UiFile>> {
    let (is_top, last) = match rest.rsplit_once('/') {
        Some((_, last)) => (false, last),
        None => (true, rest),
    };
    let is_file = if is_top { last.contains('.') } else { LOADED.iter().any(|ending| last.ends_with(ending)) };
    let depth = rest.matches('/').count();
    match is_file {
        true if is_top => made(rest, 0),
        true => None,
        false if depth > MOST_DEEP => None,
        false => made(INDEX, depth),
    }
}

fn made(name: &str, depth: usize) -> Option<Arc<UiFile>> {
    let found = Dist::get(name)?;
    let digest = found.metadata.sha256_hash();
    let key = (name.to_owned(), depth);
    let known = MADE.read().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
    if let Some(known) = known.filter(|known| known.digest == digest) {
        return Some(known);
    }
    let bytes = Bytes::from(if depth == 0 { found.data.into_owned() } else { led_up(&found.data, depth) });
    let gzip = Bytes::from(compressed(&bytes));
    let (content_type, is_named_by_content) = (content_type(name), is_named_by_content(name));
    let file = Arc::new(UiFile { bytes, gzip, content_type, is_named_by_content, digest });
    MADE.write().unwrap_or_else(PoisonError::into_inner).insert(key, Arc::clone(&file));
    Some(file)
}

/// The page for an address that lies deeper: its files are where they were, whatever prefix a proxy has put before all.
fn led_up(page: &[u8], depth: usize) -> Vec<u8> {
    String::from_utf8_lossy(page).replace(BESIDE, &format!("\"{}", "../".repeat(depth))).into_bytes()
}

fn compressed(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).and_then(|()| encoder.finish()).expect("memory takes everything")
}

fn content_type(name: &str) -> &'static str {
    match name.rsplit_once('.').map_or("", |(_, ending)| ending) {
        "html" => "text/html; charset=utf-8",
        "js" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "svg" => "image/svg+xml",
        "txt" => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}

/// The build names chunks `name-HASH.js`: eight letters of base 32.
fn is_named_by_content(name: &str) -> bool {
    let stem = name.rsplit_once('.').map_or(name, |(stem, _)| stem);
    let hash = stem.rsplit_once('-').map_or("", |(_, hash)| hash);
    hash.len() == 8 && hash.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_a_hash_never_mean_another_file() {
        for (name, is_named) in [
            ("query-AB3DE7GH.js", true),
            ("chunk-2345ABCD.js", true),
            ("app.js", false),
            ("style.css", false),
            ("query-ab3de7gh.js", false),
            ("query-AB3DE7G.js", false),
            ("THIRD-PARTY.txt", false),
        ] {
            assert_eq!(is_named_by_content(name), is_named, "{name}");
        }
    }

    #[test]
    fn every_address_is_the_page_and_no_missing_file_is() {
        let page = find("").unwrap();
        assert_eq!(page.content_type, "text/html; charset=utf-8");
        for address in ["orders", "query", "no/such/page", "orders/ord.1", "topics/orders.events/live"] {
            assert_eq!(find(address).unwrap().content_type, page.content_type, "{address}");
        }
        for nothing in
            ["nope.js", "orders/app.js", "a/b/style.css", "favicon.ico", "..%2fCargo.toml", "a/../app.js.map"]
        {
            assert_eq!(find(nothing), None, "{nothing}");
        }
        assert_eq!(find(&"a/".repeat(MOST_DEEP + 1)), None);
    }

    #[test]
    fn the_page_finds_its_files_at_any_depth() {
        let text = |rest| String::from_utf8(find(rest).unwrap().bytes.to_vec()).unwrap();
        assert!(text("orders").contains("\"./app.js\""));
        assert!(text("orders/order-1").contains("\"../app.js\""));
        assert!(text("streams/s-1/live").contains("\"../../app.js\""));
        assert!(!text("streams/s-1/live").contains(BESIDE));
    }

    #[test]
    fn what_is_compressed_is_the_same() {
        use std::io::Read;
        let file = find("app.js").unwrap();
        let mut text = Vec::new();
        flate2::read::GzDecoder::new(file.gzip.as_ref()).read_to_end(&mut text).unwrap();
        assert!(file.gzip.len() < file.bytes.len() && text == file.bytes);
    }
}
