import Sharding
