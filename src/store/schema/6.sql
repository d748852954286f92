-- What an owner answered to a request: none while it has not, and `taken` tells whether it has begun to.
ALTER TABLE requests ADD COLUMN taken INTEGER NOT NULL DEFAULT 0;
ALTER TABLE requests ADD COLUMN reply TEXT;
