//! Keys that `--dev` generates.

use std::os::unix::fs::PermissionsExt as _;

use super::*;

#[test]
fn dev_needs_nothing_and_keeps_its_keys() {
    let folder = tempfile::tempdir().unwrap();
    let first = load(&inputs(folder.path(), dev(), &[])).unwrap();
    let second = load(&inputs(folder.path(), dev(), &[])).unwrap();
    assert!(first.generated_keys.iter().all(|key| key.is_fresh) && first.generated_keys.len() == 2);
    assert!(second.generated_keys.iter().all(|key| !key.is_fresh) && second.generated_keys.len() == 2);
    assert!(
        first.master_key.matches(second.master_key.expose()),
        "the key survives a restart"
    );
    assert!(
        first
            .encryption_key
            .unwrap()
            .matches(second.encryption_key.unwrap().expose())
    );
    assert_eq!(
        (first.listen.host.as_str(), first.data_dir),
        ("127.0.0.1", folder.path().join(".lap"))
    );
    assert!(first.preinstalled_repo.is_none() && first.warnings.is_empty());
    let mode = |name: &str| folder.path().join(name).metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(
        (mode(".lap"), mode(".lap/master-key"), mode(".lap/encryption-key")),
        (0o700, 0o600, 0o600)
    );
    assert_eq!(
        folder.path().join(".lap").read_dir().unwrap().count(),
        2,
        "no draft is left behind"
    );
}

#[test]
fn two_installations_have_different_keys() {
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let key = |folder: &Path| load(&inputs(folder, dev(), &[])).unwrap().master_key;
    assert!(!key(one.path()).matches(key(other.path()).expose()));
}

#[test]
fn given_keys_are_not_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let given = [("MASTER_KEY", "given-key"), ("ENCRYPTION_KEY", ENCRYPTION_KEY)];
    let config = load(&inputs(folder.path(), dev(), &given)).unwrap();
    assert!(config.generated_keys.is_empty() && config.master_key.matches("given-key"));
    assert!(folder.path().read_dir().unwrap().next().is_none());
}

#[test]
fn a_preview_leaves_no_trace() {
    let folder = tempfile::tempdir().unwrap();
    let mut inputs = inputs(folder.path(), dev(), &[]);
    inputs.keys = GeneratedKeys::Preview;
    assert!(
        load(&inputs)
            .unwrap()
            .generated_keys
            .iter()
            .all(|key| key.is_fresh)
    );
    assert!(folder.path().read_dir().unwrap().next().is_none());
}

#[test]
fn many_starts_at_once_agree_on_one_key() {
    let folder = tempfile::tempdir().unwrap();
    let keys: Vec<_> = std::thread::scope(|scope| {
        let start = || load(&inputs(folder.path(), dev(), &[])).unwrap().master_key;
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(start)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(keys.iter().all(|key| key.matches(keys[0].expose())));
}

#[test]
fn a_key_file_that_others_may_read_or_that_is_damaged_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    load(&inputs(folder.path(), dev(), &[])).unwrap();
    let file = folder.path().join(".lap/master-key");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
    let report = load(&inputs(folder.path(), dev(), &[])).unwrap_err();
    assert!(
        names(&report) == ["MASTER_KEY"] && report.to_string().contains("chmod 600"),
        "{report}"
    );
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    std::fs::write(&file, "canary\n").unwrap();
    let report = load(&inputs(folder.path(), dev(), &[])).unwrap_err();
    assert!(
        report.to_string().contains("too short") && !report.to_string().contains("canary"),
        "{report}"
    );
}

#[test]
fn a_data_folder_that_cannot_be_made_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("file"), "").unwrap();
    let flags = Flags {
        data_dir: Some("file".into()),
        ..dev()
    };
    let report = load(&inputs(folder.path(), flags, &[])).unwrap_err();
    assert_eq!(names(&report), ["MASTER_KEY", "ENCRYPTION_KEY"]);
    assert!(
        report.to_string().contains("choose another data folder"),
        "{report}"
    );
}
