//! Archives as they should be, and as somebody with bad intentions makes them.

use super::*;

fn packed(entries: &[(&str, Content<'_>)]) -> Vec<u8> {
    let mut packer = Packer::new(1 << 20);
    for (path, content) in entries {
        assert!(packer.add(Path::new(path), *content).unwrap());
    }
    packer.into_bytes()
}

fn listed(archive: &[u8]) -> Result<Vec<String>, Invalid> {
    let mut all = Vec::new();
    unpack(archive, 4 << 20, |path, found| {
        all.push(match found {
            Found::File(mode, size, content) => {
                let mut bytes = Vec::new();
                content
                    .read_to_end(&mut bytes)
                    .map_err(|error| error.to_string())?;
                if bytes.len() as u64 != size {
                    return Err("shorter than it says".to_owned());
                }
                format!("{} {mode:o} {}", path.display(), String::from_utf8_lossy(&bytes))
            }
            Found::Link(target) => format!("{} -> {}", path.display(), target.display()),
        });
        Ok(())
    })?;
    Ok(all)
}

/// An archive made by hand, as somebody with bad intentions would.
fn by_hand(path: &str, kind: EntryType, target: &str, size: u64, content: &[u8]) -> Vec<u8> {
    let mut header = tar::Header::new_gnu();
    header.as_gnu_mut().unwrap().name[..path.len()].copy_from_slice(path.as_bytes());
    header.as_gnu_mut().unwrap().linkname[..target.len()].copy_from_slice(target.as_bytes());
    header.set_entry_type(kind);
    header.set_mode(0o4777);
    header.set_size(size);
    header.set_cksum();
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(header.as_bytes()).unwrap();
    encoder.write_all(content).unwrap();
    encoder
        .write_all(&vec![0; 512 - content.len() % 512 + 1024])
        .unwrap();
    encoder.finish().unwrap()
}

#[test]
fn what_goes_in_comes_out() {
    let long = format!("files/{}", "directory/".repeat(30) + "file");
    let far = "../".repeat(60);
    let archive = packed(&[
        ("files/a b", Content::File(0o755, b"hello")),
        (&long, Content::File(0o644, b"")),
        ("files/link", Content::Link(Path::new(&far))),
    ]);
    let expected = [
        "files/a b 755 hello".to_owned(),
        format!("{long} 644 "),
        format!("files/link -> {far}"),
    ];
    assert_eq!(listed(&archive).unwrap(), expected);
}

#[test]
fn what_does_not_fit_leaves_the_archive_as_it_was() {
    let mut packer = Packer::new(1000);
    assert!(packer.add(Path::new("a"), Content::File(0o644, b"x")).unwrap());
    let noise: Vec<u8> = (0..4000u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect();
    assert!(!packer.add(Path::new("b"), Content::File(0o644, &noise)).unwrap());
    assert!(packer.add(Path::new("c"), Content::File(0o644, b"y")).unwrap());
    let bytes = packer.into_bytes();
    assert!(bytes.len() <= 1000);
    assert_eq!(listed(&bytes).unwrap(), ["a 644 x", "c 644 y"]);
}

#[test]
fn paths_that_lead_out_and_special_entries_are_refused() {
    for path in [
        "../out",
        "/etc/passwd",
        "files/../../x",
        "files/.git/config",
        "files/a/.GIT/hooks/x",
        "files//x",
        "./files/x",
        "files/./x",
        "",
    ] {
        let archive = by_hand(path, EntryType::Regular, "", 1, b"x");
        assert!(listed(&archive).is_err(), "{path:?}");
    }
    for kind in [
        EntryType::Link,
        EntryType::Char,
        EntryType::Block,
        EntryType::Fifo,
        EntryType::Directory,
        EntryType::GNUSparse,
        EntryType::XHeader,
        EntryType::XGlobalHeader,
        EntryType::Continuous,
    ] {
        let archive = by_hand("files/x", kind, "files/y", 0, b"");
        assert!(listed(&archive).is_err(), "{kind:?}");
    }
    assert!(listed(&by_hand("files/x", EntryType::Symlink, "", 0, b"")).is_err());
    // The bits that give away rights do not come through.
    let archive = by_hand("files/x", EntryType::Regular, "", 1, b"x");
    assert_eq!(listed(&archive).unwrap(), ["files/x 777 x"]);
}

#[test]
fn bombs_and_lies_about_sizes_are_refused() {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    let mut header = tar::Header::new_gnu();
    header.set_path("files/x").unwrap();
    header.set_entry_type(EntryType::Regular);
    header.set_mode(0o644);
    header.set_size(8 << 20);
    header.set_cksum();
    encoder.write_all(header.as_bytes()).unwrap();
    let block = vec![0; 1 << 20];
    for _ in 0..8 {
        encoder.write_all(&block).unwrap();
    }
    let bomb = encoder.finish().unwrap();
    assert!(bomb.len() < 64 << 10);
    let skipped = unpack(&bomb, 4 << 20, |_, _| Ok(()));
    assert!(skipped.unwrap_err().contains("too large"));

    let path = [b'x'; 100];
    let huge_name = by_hand("x", EntryType::GNULongName, "", 1 << 40, &path);
    assert!(listed(&huge_name).is_err());
    assert!(listed(&by_hand("files/x", EntryType::Regular, "", 1 << 40, b"x")).is_err());
    assert!(listed(&by_hand("files/x", EntryType::Regular, "", u64::MAX, b"x")).is_err());
    assert!(listed(b"neither gzip nor tar").is_err());
    let mut twice = packed(&[("files/x", Content::File(0o644, b"1"))]);
    twice.extend_from_within(..);
    assert!(listed(&twice).is_err());
    let whole = packed(&[("files/x", Content::File(0o644, &[7; 2000]))]);
    assert!(listed(&whole[..whole.len() / 2]).is_err());
}
