//! Catalog records in Redis: read one by one, published as a whole or as changes.
//!
//! `weir:{catalog}` holds revision and digest, `weir:{catalog}:services` the services' records. Applications live
//! in their shards, where each shard also holds the versions of all services, so that one function call can
//! compare both. Records are written before versions, the revision last: whoever sees a new version finds its record,
//! and a publication that breaks off is simply done again.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::Duration;

use weir_core::lease::ledger::Lease;
use weir_core::{ApplicationId, ApplicationRef, KeyHash, ServiceId};

use super::batch::{read_version, version_text};
use super::lease::read_leases;
use super::queue::{unreplicated, wait_for_replicas};
use super::{Redis, SHARDS, shard_of, shard_of_text};
use crate::ask::judge_revision;
use crate::recalls::Recall;
use crate::{Publication, PublishError, Record, StoreError};

const CATALOG: &str = "weir:{catalog}";
const SERVICES: &str = "weir:{catalog}:services";

/// How long replicas are waited for at a time, and how often: together, as long as a catalog may take.
const WAIT: Duration = Duration::from_millis(250);
const WAITS_MAX: usize = 20;

/// Most applications that one call puts in place.
const APPLICATIONS_PER_CALL: usize = 256;

fn key(shard: usize, name: &str) -> String {
    format!("weir:{{{shard}}}:{name}")
}

fn user_key_field(service: &ServiceId, hash: &KeyHash) -> String {
    format!("{service}/{hash}")
}

/// A service's record as stored: 16 digits of version, then the content.
fn stored(record: &Record) -> Vec<u8> {
    [version_text(record.version).as_bytes(), &record.bytes].concat()
}

fn read_stored(bytes: &[u8]) -> Result<Record, StoreError> {
    let broken = || StoreError::Answer("a service record without version".into());
    let (version, content) = bytes.split_at_checked(16).ok_or_else(broken)?;
    Ok(Record { version: read_version(version).ok_or_else(broken)?, bytes: content.into() })
}

/// What a shard holds and what it shall hold.
#[derive(Default)]
struct ShardChange {
    /// Application → version and record; `None` removes it.
    applications: Vec<(String, Option<Record>)>,
    services: Vec<(String, Option<String>)>,
}

fn recalls_of(changes: &BTreeMap<usize, ShardChange>) -> Vec<Recall> {
    let applications = changes.values().flat_map(|change| &change.applications);
    let applications = applications.filter_map(|(name, _)| name.parse().ok()).collect();
    // Each shard has all services.
    let services = changes.values().flat_map(|change| &change.services);
    let services: BTreeSet<ServiceId> = services.filter_map(|(id, _)| id.parse().ok()).collect();
    Recall::of_changes(services, applications)
}

impl Redis {
    /// For what is long and rare.
    pub(super) async fn connection(&self) -> Result<deadpool_redis::Connection, StoreError> {
        self.shared.pool.get().await.map_err(|error| match error {
            deadpool_redis::PoolError::Backend(error) => StoreError::Away(Some(error)),
            _ => StoreError::Away(None),
        })
    }

    /// A shared connection for one read: checking one out of the pool would cost more than the read.
    pub(super) fn reader(&self) -> redis::aio::ConnectionManager {
        self.shared.reader.clone()
    }

    pub(crate) async fn leases(&self, application: &ApplicationRef) -> Result<Vec<Lease>, StoreError> {
        let leases: Option<Vec<u8>> = redis::cmd("HGET")
            .arg(key(shard_of(application), "leases"))
            .arg(application.to_string())
            .query_async(&mut self.reader())
            .await?;
        let broken = || StoreError::Answer("leases of unknown shape".into());
        leases.map_or(Ok(vec![]), |bytes| read_leases(&mut &bytes[..]).ok_or_else(broken))
    }

    pub(crate) async fn revision(&self) -> Result<u64, StoreError> {
        Ok(self.held().await?.map_or(0, |(revision, _)| revision))
    }

    async fn held(&self) -> Result<Option<(u64, u64)>, StoreError> {
        let held: (Option<u64>, Option<String>) = redis::cmd("HMGET")
            .arg(CATALOG)
            .arg("revision")
            .arg("digest")
            .query_async(&mut self.reader())
            .await?;
        let digest = held.1.and_then(|text| u64::from_str_radix(&text, 16).ok());
        Ok(held.0.zip(digest))
    }

    pub(crate) async fn service(&self, id: &ServiceId) -> Result<Option<Record>, StoreError> {
        let bytes: Option<Vec<u8>> =
            redis::cmd("HGET").arg(SERVICES).arg(id.as_str()).query_async(&mut self.reader()).await?;
        bytes.map(|bytes| read_stored(&bytes)).transpose()
    }

    pub(crate) async fn services(&self) -> Result<Vec<(ServiceId, Record)>, StoreError> {
        let all: HashMap<String, Vec<u8>> =
            redis::cmd("HGETALL").arg(SERVICES).query_async(&mut self.connection().await?).await?;
        let mut services = Vec::new();
        for (id, bytes) in all {
            let id: ServiceId =
                id.parse().map_err(|_| StoreError::Answer(format!("a service called {id:?}")))?;
            services.push((id, read_stored(&bytes)?));
        }
        services.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(services)
    }

    pub(crate) async fn application(
        &self,
        application: &ApplicationRef,
    ) -> Result<Option<Record>, StoreError> {
        let shard = shard_of(application);
        // In one transaction, so that version and record belong together.
        let (version, bytes): (Option<Vec<u8>>, Option<Vec<u8>>) = redis::pipe()
            .atomic()
            .cmd("HGET")
            .arg(key(shard, "versions"))
            .arg(application.to_string())
            .cmd("HGET")
            .arg(key(shard, "records"))
            .arg(application.to_string())
            .query_async(&mut self.reader())
            .await?;
        let version = version.as_deref().and_then(read_version);
        Ok(version.zip(bytes).map(|(version, bytes)| Record { version, bytes: bytes.into() }))
    }

    pub(crate) async fn application_of_user_key(
        &self,
        service: &ServiceId,
        user_key: &KeyHash,
    ) -> Result<Option<ApplicationId>, StoreError> {
        let field = user_key_field(service, user_key);
        let found: Option<String> = redis::cmd("HGET")
            .arg(key(shard_of_text(&field), "user_keys"))
            .arg(&field)
            .query_async(&mut self.reader())
            .await?;
        Ok(found.and_then(|id| id.parse().ok()))
    }

    pub(crate) async fn publish(&self, publication: Publication) -> Result<(), PublishError> {
        if !judge_revision(&publication, self.held().await?)? {
            return Ok(self.replicate_again(publication.revision).await?);
        }
        let removed_services = self.put_service_records(&publication).await?;
        let changes = self.shard_changes(&publication, &removed_services).await?;
        self.put_user_keys(&publication, &changes).await?;
        self.put_shards(publication.revision, &changes).await?;
        let mut pipe = redis::pipe();
        pipe.cmd("HSET").arg(CATALOG).arg("revision").arg(publication.revision);
        pipe.arg("digest").arg(format!("{:016x}", publication.digest())).ignore();
        for id in &removed_services {
            pipe.cmd("HDEL").arg(SERVICES).arg(id).ignore();
        }
        let mut connection = self.connection().await?;
        pipe.query_async::<()>(&mut connection).await.map_err(StoreError::from)?;
        // It is in force, whether replicas have it or not.
        self.recall(&recalls_of(&changes)).await;
        Ok(self.replicated(&mut connection).await?)
    }

    /// What is in place already may not have reached replicas when it was put there.
    async fn replicate_again(&self, revision: u64) -> Result<(), StoreError> {
        if self.shared.replicas == 0 {
            return Ok(());
        }
        let mut connection = self.connection().await?;
        // Waited for is what this connection has written.
        let mut write = redis::cmd("HSET");
        write.arg(CATALOG).arg("published_again").arg(revision);
        write.query_async::<()>(&mut connection).await?;
        self.replicated(&mut connection).await
    }

    /// Waits until replicas have what a connection wrote: then they have all that was written before, too.
    async fn replicated(&self, connection: &mut deadpool_redis::Connection) -> Result<(), StoreError> {
        let replicas = self.shared.replicas;
        if replicas == 0 {
            return Ok(());
        }
        for _ in 0..WAITS_MAX {
            let wait = wait_for_replicas(replicas, WAIT);
            if wait.query_async::<u32>(connection).await? >= replicas {
                return Ok(());
            }
        }
        Err(unreplicated().into())
    }

    /// Writes records; returns the services that are to go.
    async fn put_service_records(&self, publication: &Publication) -> Result<HashSet<String>, StoreError> {
        let mut connection = self.connection().await?;
        let known: Vec<String> = redis::cmd("HKEYS").arg(SERVICES).query_async(&mut connection).await?;
        for (id, record) in &publication.services {
            let mut put = redis::cmd("HSET");
            put.arg(SERVICES).arg(id.as_str()).arg(stored(record));
            put.query_async::<()>(&mut connection).await?;
        }
        if !publication.complete {
            return Ok(publication.removed_services.iter().map(ServiceId::to_string).collect());
        }
        let named: HashSet<&str> = publication.services.iter().map(|(id, _)| id.as_str()).collect();
        Ok(known.into_iter().filter(|id| !named.contains(id.as_str())).collect())
    }

    async fn shard_changes(
        &self,
        publication: &Publication,
        removed_services: &HashSet<String>,
    ) -> Result<BTreeMap<usize, ShardChange>, StoreError> {
        let mut changes: BTreeMap<usize, ShardChange> = BTreeMap::new();
        let mut wanted: Vec<HashMap<String, &Record>> = vec![HashMap::new(); SHARDS];
        for published in &publication.applications {
            let name = published.application.to_string();
            wanted[shard_of_text(&name)].insert(name, &published.record);
        }
        for application in &publication.removed_applications {
            let change = changes.entry(shard_of(application)).or_default();
            change.applications.push((application.to_string(), None));
        }
        let services: Vec<(String, Option<String>)> = publication
            .services
            .iter()
            .map(|(id, record)| (id.to_string(), Some(version_text(record.version))))
            .chain(removed_services.iter().map(|id| (id.clone(), None)))
            .collect();
        for (shard, (held, held_services)) in self.read_shards().await?.into_iter().enumerate() {
            let change = changes.entry(shard).or_default();
            for (name, record) in &wanted[shard] {
                if held.get(name) != Some(&version_text(record.version)) {
                    change.applications.push((name.clone(), Some((*record).clone())));
                }
            }
            if publication.complete {
                let gone = held.into_keys().filter(|name| !wanted[shard].contains_key(name));
                change.applications.extend(gone.map(|name| (name, None)));
            }
            let differs =
                |(id, version): &&(String, Option<String>)| held_services.get(id) != version.as_ref();
            change.services = services.iter().filter(differs).cloned().collect();
        }
        Ok(changes)
    }

    /// Of each shard: application → version, service → version.
    #[allow(clippy::type_complexity, reason = "two maps, named in the sentence above")]
    async fn read_shards(
        &self,
    ) -> Result<Vec<(HashMap<String, String>, HashMap<String, String>)>, StoreError> {
        let mut connection = self.connection().await?;
        let mut shards = Vec::with_capacity(SHARDS);
        for shard in 0..SHARDS {
            let mut versions: HashMap<String, String> =
                redis::cmd("HGETALL").arg(key(shard, "versions")).query_async(&mut connection).await?;
            versions.retain(|_, version| !version.is_empty());
            // Only applications have a slash.
            shards.push(versions.into_iter().partition(|(name, _)| name.contains('/')));
        }
        Ok(shards)
    }

    /// Keeps the index from `user_key` to application in step. Only a hint, so not in one step with the records.
    async fn put_user_keys(
        &self,
        publication: &Publication,
        changes: &BTreeMap<usize, ShardChange>,
    ) -> Result<(), StoreError> {
        let wanted: HashMap<String, Option<String>> = publication
            .applications
            .iter()
            .map(|published| {
                let service = &published.application.service;
                let field = published.user_key.as_ref().map(|hash| user_key_field(service, hash));
                (published.application.to_string(), field)
            })
            .collect();
        let mut connection = self.connection().await?;
        // A key may move from one application to another: all leave before any arrives.
        let mut arriving = redis::pipe();
        for (shard, change) in changes.iter().filter(|(_, change)| !change.applications.is_empty()) {
            let by_application = key(*shard, "user_key_of");
            let names: Vec<&str> = change.applications.iter().map(|(name, _)| name.as_str()).collect();
            let held: Vec<Option<String>> =
                redis::cmd("HMGET").arg(&by_application).arg(&names).query_async(&mut connection).await?;
            let mut leaving = redis::pipe();
            for (name, held) in names.into_iter().zip(held) {
                let field = wanted.get(name).cloned().flatten();
                if let Some(old) = held.filter(|old| field.as_ref() != Some(old)) {
                    leaving.cmd("HDEL").arg(key(shard_of_text(&old), "user_keys")).arg(old).ignore();
                    leaving.cmd("HDEL").arg(&by_application).arg(name).ignore();
                }
                if let (Some(field), Some((_, id))) = (&field, name.split_once('/')) {
                    let by_key = key(shard_of_text(field), "user_keys");
                    arriving.cmd("HSET").arg(by_key).arg(field).arg(id).ignore();
                    arriving.cmd("HSET").arg(&by_application).arg(name).arg(field).ignore();
                }
            }
            if !leaving.is_empty() {
                leaving.query_async::<()>(&mut connection).await?;
            }
        }
        if !arriving.is_empty() {
            arriving.query_async::<()>(&mut connection).await?;
        }
        Ok(())
    }

    async fn put_shards(
        &self,
        revision: u64,
        changes: &BTreeMap<usize, ShardChange>,
    ) -> Result<(), PublishError> {
        let mut connection = self.connection().await?;
        let changed: Vec<_> =
            changes.iter().filter(|(_, c)| !c.applications.is_empty() || !c.services.is_empty()).collect();
        for (shard, change) in changed {
            let mut pipe = redis::pipe();
            self.add_shard(&mut pipe, *shard, revision, change);
            if let Err(error) = pipe.query_async::<redis::Value>(&mut connection).await {
                return Err(match (error.code(), error.detail().and_then(|held| held.trim().parse().ok())) {
                    (Some("WEIROLDER"), Some(held)) => PublishError::Older { held, offered: revision },
                    _ => StoreError::from(error).into(),
                });
            }
        }
        Ok(())
    }

    /// In calls that do not keep Redis busy for long: its applications, then its services.
    fn add_shard(&self, pipe: &mut redis::Pipeline, shard: usize, revision: u64, change: &ShardChange) {
        for applications in change.applications.chunks(APPLICATIONS_PER_CALL) {
            let call = self.add_publish(pipe, shard, revision);
            for (name, record) in applications {
                call.arg(name);
                match record {
                    Some(record) => call.arg(version_text(record.version)).arg(&record.bytes[..]),
                    None => call.arg("").arg(""),
                };
            }
            call.arg("");
        }
        let call = self.add_publish(pipe, shard, revision).arg("");
        for (id, version) in &change.services {
            call.arg(id).arg(version.as_deref().unwrap_or_default());
        }
    }

    fn add_publish<'a>(
        &self,
        pipe: &'a mut redis::Pipeline,
        shard: usize,
        revision: u64,
    ) -> &'a mut redis::Pipeline {
        let call = pipe.cmd("FCALL").arg(&*self.shared.functions.publish).arg(1);
        call.arg(format!("weir:{{{shard}}}")).arg(revision)
    }
}
