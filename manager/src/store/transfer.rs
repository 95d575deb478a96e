//! Brings an image over a link: the receiver asks for each file that it lacks, from where it has it.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use protocol::{
    ids::ImageId,
    image::{ImageFile, Kind, Want},
    limits::{IMAGE_IDLE_MAX, IMAGE_STALL_MAX, MANIFEST_BYTES_MAX},
};

use super::{Building, Hash, Store, StoreError, arriving::Arriving, failed, records::Records};
use crate::links::Link;

/// A transfer ended before the image was there. What had come of it stays, and the next one goes on from there.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    /// The store of this side.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The connection broke.
    #[error("the connection broke ({0}); what has come is kept, so try again")]
    Broken(io::Error),
    /// The other side ended the link.
    #[error("the other side ended the transfer in the middle; what has come is kept, so try again")]
    Truncated,
    /// Nothing came or went for too long.
    #[error("the transfer stood still for {} s; what has come is kept, so try again", IMAGE_STALL_MAX.as_secs())]
    Stalled,
    /// A record was not sealed by the other side, or not as the next one.
    #[error("a record was changed on its way; somebody is in between")]
    Forged,
    /// The other side breaks the rules.
    #[error("the other side does not keep to the protocol: {0}")]
    Garbled(&'static str),
    /// The other side does not have it.
    #[error("the other side does not have {0}")]
    Absent(String),
    /// More bytes than the file has.
    #[error("more than the {bytes} bytes of `{name}` came")]
    TooLong {
        /// The file.
        name: String,
        /// Its length.
        bytes: u64,
    },
}

/// Gives the other side of the link the files that it asks for, until it ends the link. Returns how many bytes of files
/// went.
///
/// # Errors
/// [`TransferError`] when the link breaks, or the other side breaks the rules.
pub async fn serve(link: Link, store: &Store) -> Result<u64, TransferError> {
    let (mut records, mut sent) = (Records::new(link)?, 0);
    while let Some((kind, body)) = records.receive(IMAGE_IDLE_MAX).await? {
        let want = (kind == Kind::Want).then(|| Want::decode(body)).flatten();
        let want = want.ok_or(TransferError::Garbled("it sends, and should ask"))?;
        let Some((path, file)) = store.find(&want.hash)? else {
            records.send(Kind::Absent, &[]).await?;
            continue;
        };
        let mut pieces = store.disk()?.read(file, want.offset);
        while let Some(piece) = pieces.recv().await {
            let piece = piece.map_err(failed("reading", &path))?;
            records.send(Kind::Bytes, &piece).await?;
            sent += piece.len() as u64;
        }
        records.send(Kind::End, &[]).await?;
    }
    Ok(sent)
}

/// Asks the other side of the link for what this store lacks of an image. Returns how many bytes of files came: none, if
/// all of it is here already, or another call brings it meanwhile.
///
/// # Errors
/// [`TransferError`] says what went wrong, and what to do.
///
/// # Cancel safety
/// What has come stays, and the next call goes on from there.
pub async fn fetch(link: Link, store: &Store, id: ImageId) -> Result<u64, TransferError> {
    let _held = store.hold(id.0).await;
    if store.has(id) {
        return Ok(0);
    }
    let mut records = Records::new(link)?;
    let bytes = fetch_manifest(&mut records, id).await?;
    match fetch_files(&mut records, store, id, &bytes).await {
        Err(TransferError::Store(error)) => Ok(store.make_room(Err(error))?),
        other => other,
    }
}

async fn fetch_files(
    records: &mut Records,
    store: &Store,
    id: ImageId,
    bytes: &[u8],
) -> Result<u64, TransferError> {
    let manifest = store.read_manifest(id, bytes)?;
    let building = Building::start(store, id, bytes)?;
    let mut came = 0;
    for file in &manifest.files {
        let hash = file.digest().ok_or(TransferError::Garbled("a file has no hash"))?;
        let _held = store.hold(hash).await;
        if !building.link(file, &store.file(&hash))? {
            let mut arriving = Arriving::open(store, file, hash).await?;
            let before = arriving.bytes();
            match fetch_file(records, &mut arriving, file, hash).await {
                Ok(()) => came += file.bytes - before,
                // The next attempt finds it all on the disk, and unlocked. That there is no room is said first.
                Err(TransferError::Store(error)) => return Err(error.into()),
                Err(error) => return arriving.pause().await.map_err(Into::into).and(Err(error)),
            }
            arriving.finish(&building).await?;
        }
    }
    building.publish()?;
    Ok(came)
}

async fn fetch_manifest(records: &mut Records, id: ImageId) -> Result<Vec<u8>, TransferError> {
    let mut manifest = Vec::new();
    records.send(Kind::Want, &Want { hash: id.0, offset: 0 }.encode()).await?;
    loop {
        match answer(records, IMAGE_STALL_MAX).await? {
            (Kind::Bytes, piece) if manifest.len() + piece.len() <= MANIFEST_BYTES_MAX => {
                manifest.extend(piece)
            }
            (Kind::Bytes, _) => {
                return Err(TransferError::TooLong {
                    name: "manifest".into(),
                    bytes: MANIFEST_BYTES_MAX as u64,
                });
            }
            (Kind::End, _) => return Ok(manifest),
            (Kind::Absent, _) => return Err(TransferError::Absent(format!("image {id}"))),
            (Kind::Want, _) => return Err(TransferError::Garbled("it asks, and should send")),
        }
    }
}

async fn fetch_file(
    records: &mut Records,
    arriving: &mut Arriving<'_>,
    file: &ImageFile,
    hash: Hash,
) -> Result<(), TransferError> {
    // It was all there, and only its check was missing.
    if arriving.missing() == 0 {
        return Ok(());
    }
    records.send(Kind::Want, &Want { hash, offset: arriving.bytes() }.encode()).await?;
    loop {
        match answer(records, IMAGE_STALL_MAX).await? {
            (Kind::Bytes, piece) if piece.len() as u64 <= arriving.missing() => arriving.push(piece).await?,
            (Kind::Bytes, _) => {
                return Err(TransferError::TooLong { name: file.name.clone(), bytes: file.bytes });
            }
            (Kind::End, _) if arriving.missing() == 0 => return Ok(()),
            (Kind::End, _) => return Err(TransferError::Truncated),
            (Kind::Absent, _) => return Err(TransferError::Absent(format!("`{}`", file.name))),
            (Kind::Want, _) => return Err(TransferError::Garbled("it asks, and should send")),
        }
    }
}

async fn answer(records: &mut Records, wait: Duration) -> Result<(Kind, &[u8]), TransferError> {
    records.receive(wait).await?.ok_or(TransferError::Truncated)
}

impl Store {
    /// A file, or the manifest of an image, by its hash.
    fn find(&self, hash: &Hash) -> Result<Option<(PathBuf, File)>, StoreError> {
        let open = |path: &Path| match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            other => other.map(Some).map_err(failed("opening", path)),
        };
        for path in [self.file(hash), self.image(ImageId(*hash)).join("manifest")] {
            if let Some(file) = open(&path)? {
                return Ok(Some((path, file)));
            }
        }
        Ok(None)
    }
}
