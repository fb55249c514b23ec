-- Large bodies by their SHA-256.

-- name: blob_insert
INSERT INTO blob (sha256, size, created_at, body)
VALUES (:sha256, :size, :now, :body)
ON CONFLICT (sha256) DO NOTHING;

-- name: blob_by_sha256
SELECT body
FROM blob
WHERE sha256 = :sha256;
