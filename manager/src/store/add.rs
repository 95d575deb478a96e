//! Takes a program of this machine into the store.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::PermissionsExt,
    path::Path,
};

use prost::Message;
use protocol::{
    ids::ImageId,
    image::{ImageFile, Manifest},
};

use super::{
    Building, Hash, Store, StoreError,
    arriving::Arriving,
    closure::{self, Part},
    failed,
};
use crate::image::Image;

impl Store {
    /// Takes in the program at `path` with its loader and the libraries that it loads here. What is there already is
    /// not written again.
    ///
    /// # Errors
    /// [`StoreError`] when it can't be run as a job, a library is missing, something changes meanwhile, or there is
    /// no room.
    ///
    /// # Cancel safety
    /// What was written stays, and the next attempt goes on from there.
    pub async fn add(&self, path: &Path) -> Result<ImageId, StoreError> {
        let image = Image::load(path)?;
        let parts = closure::of(path, &image)?;
        let mut files = Vec::new();
        for part in &parts {
            files.push(self.describe(part).await?);
        }
        let manifest = Manifest { files };
        let bytes = manifest.encode_to_vec();
        let id = ImageId(*blake3::hash(&bytes).as_bytes());
        let manifest = self.read_manifest(id, &bytes)?;
        let _held = self.hold(id.0).await;
        if self.has(id) {
            return Ok(id);
        }
        let brought = self.bring(id, &bytes, &manifest, &parts).await;
        self.make_room(brought).and(Ok(id))
    }

    async fn bring(
        &self,
        id: ImageId,
        bytes: &[u8],
        manifest: &Manifest,
        parts: &[Part],
    ) -> Result<(), StoreError> {
        let building = Building::start(self, id, bytes)?;
        for (file, part) in manifest.files.iter().zip(parts) {
            let hash = file.digest().ok_or_else(|| StoreError::Changed(file.name.clone()))?;
            let _held = self.hold(hash).await;
            if !building.link(file, &self.file(&hash))? {
                self.copy(&building, file, hash, part).await?;
            }
        }
        building.publish()
    }

    async fn describe(&self, part: &Part) -> Result<ImageFile, StoreError> {
        let source = File::open(&part.path).map_err(failed("opening", &part.path))?;
        let metadata = source.metadata().map_err(failed("looking at", &part.path))?;
        if !metadata.is_file() {
            return Err(failed("reading", &part.path)(io::ErrorKind::InvalidInput.into()));
        }
        let mut hasher = blake3::Hasher::new();
        let mut pieces = self.disk()?.read(source, 0);
        while let Some(piece) = pieces.recv().await {
            hasher.update(&piece.map_err(failed("reading", &part.path))?);
        }
        Ok(ImageFile {
            role: part.role as i32,
            name: part.name.clone(),
            bytes: hasher.count(),
            hash: hasher.finalize().as_bytes().to_vec(),
            mode: metadata.permissions().mode() & 0o777,
        })
    }

    async fn copy(
        &self,
        building: &Building<'_>,
        file: &ImageFile,
        hash: Hash,
        part: &Part,
    ) -> Result<(), StoreError> {
        let source = fs::File::open(&part.path).map_err(failed("opening", &part.path))?;
        let mut arriving = Arriving::open(self, file, hash).await?;
        let mut pieces = self.disk()?.read(source, arriving.bytes());
        while let Some(piece) = pieces.recv().await {
            let piece = piece.map_err(failed("reading", &part.path))?;
            if piece.len() as u64 > arriving.missing() {
                return Err(StoreError::Changed(file.name.clone()));
            }
            arriving.push(&piece).await?;
        }
        arriving.finish(building).await.map_err(|error| match error {
            StoreError::Corrupt { name } => StoreError::Changed(name),
            other => other,
        })
    }
}
