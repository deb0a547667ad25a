import Syncing
