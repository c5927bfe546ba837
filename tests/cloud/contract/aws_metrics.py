"""AWS's own metrics that the templates may name, with the sets of dimensions under which they exist.

From the services' pages in the AWS documentation: a name that is not here is refused, so a new one is
looked up first. A metric with another set of dimensions is another metric, and has no data.
"""

_SERVICE = frozenset({"ClusterName", "ServiceName"})
_BALANCER = frozenset({"LoadBalancer"})
_TARGETS = frozenset({"LoadBalancer", "TargetGroup"})
_DATABASE = frozenset({"DBInstanceIdentifier"})
_CACHE_NODE = frozenset({"CacheClusterId", "CacheNodeId"})
_NAT = frozenset({"NatGatewayId"})
_TOPIC = frozenset({"TopicName"})
_FUNCTION = frozenset({"FunctionName"})

AWS_METRICS: dict[tuple[str, str], tuple[frozenset[str], ...]] = {
    # Amazon ECS: published by the service without Container Insights.
    ("AWS/ECS", "CPUUtilization"): (_SERVICE,),
    ("AWS/ECS", "MemoryUtilization"): (_SERVICE,),
    # Application Load Balancer.
    ("AWS/ApplicationELB", "RequestCount"): (_BALANCER, _TARGETS),
    ("AWS/ApplicationELB", "HTTPCode_ELB_5XX_Count"): (_BALANCER,),
    ("AWS/ApplicationELB", "HTTPCode_Target_5XX_Count"): (_BALANCER, _TARGETS),
    ("AWS/ApplicationELB", "HTTPCode_Target_4XX_Count"): (_BALANCER, _TARGETS),
    ("AWS/ApplicationELB", "TargetResponseTime"): (_BALANCER, _TARGETS),
    ("AWS/ApplicationELB", "HealthyHostCount"): (_TARGETS,),
    ("AWS/ApplicationELB", "UnHealthyHostCount"): (_TARGETS,),
    ("AWS/ApplicationELB", "ActiveConnectionCount"): (_BALANCER,),
    ("AWS/ApplicationELB", "RejectedConnectionCount"): (_BALANCER,),
    ("AWS/ApplicationELB", "TargetConnectionErrorCount"): (_BALANCER, _TARGETS),
    # Amazon RDS.
    ("AWS/RDS", "DatabaseConnections"): (_DATABASE,),
    ("AWS/RDS", "CPUUtilization"): (_DATABASE,),
    ("AWS/RDS", "FreeStorageSpace"): (_DATABASE,),
    ("AWS/RDS", "FreeableMemory"): (_DATABASE,),
    ("AWS/RDS", "ReadLatency"): (_DATABASE,),
    ("AWS/RDS", "WriteLatency"): (_DATABASE,),
    ("AWS/RDS", "ReadIOPS"): (_DATABASE,),
    ("AWS/RDS", "WriteIOPS"): (_DATABASE,),
    ("AWS/RDS", "ReplicaLag"): (_DATABASE,),
    ("AWS/RDS", "OldestReplicationSlotLag"): (_DATABASE,),
    # Amazon ElastiCache, for each node.
    ("AWS/ElastiCache", "CPUUtilization"): (_CACHE_NODE,),
    ("AWS/ElastiCache", "EngineCPUUtilization"): (_CACHE_NODE,),
    ("AWS/ElastiCache", "DatabaseMemoryUsagePercentage"): (_CACHE_NODE,),
    ("AWS/ElastiCache", "Evictions"): (_CACHE_NODE,),
    ("AWS/ElastiCache", "CurrConnections"): (_CACHE_NODE,),
    ("AWS/ElastiCache", "ReplicationLag"): (_CACHE_NODE,),
    ("AWS/ElastiCache", "FreeableMemory"): (_CACHE_NODE,),
    # Others.
    ("AWS/Route53", "HealthCheckStatus"): (frozenset({"HealthCheckId"}),),
    ("AWS/NATGateway", "ErrorPortAllocation"): (_NAT,),
    ("AWS/SNS", "NumberOfNotificationsFailed"): (_TOPIC,),
    ("AWS/Lambda", "Errors"): (_FUNCTION,),
    ("AWS/WAFV2", "BlockedRequests"): (frozenset({"WebACL", "Region", "Rule"}),),
}
