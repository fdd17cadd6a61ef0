#!/usr/bin/env bash
# A real single-node Kubernetes for tests, out of package registries only, in a network namespace of its own.
#   up.sh DIR [api|node]      node (default): pods run.  api: control plane only, pods stay Pending.
# Builds what is missing into DIR (keep DIR/bin to save the build), starts everything, writes DIR/kubeconfig.
# Run again: does nothing when all of it is up; if a part has died it starts anew, empty. Needs root, Go, Debian's packages. End it with down.sh DIR.
set -euo pipefail
umask 022
usage() { echo "usage: up.sh DIR [api|node]" >&2; exit 2; }
[ $# -ge 1 ] || usage
level=${2:-node}; case $level in api|node) ;; *) usage;; esac
[ "$(id -u)" = 0 ] || { echo "up.sh: must be root" >&2; exit 1; }
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1"; D=$(cd "$1" && pwd)
[ ${#D} -le 60 ] || { echo "up.sh: $D is too long a path (unix sockets)" >&2; exit 1; }
port=${K8S_PORT:-6443}                 # the API server on the host's loopback
ns=${K8S_NETNS:-k8s-$(printf %s "$D" | cksum | cut -d' ' -f1)}
V=1.34.0 node=node-1 nodeip=10.90.0.1 pods=10.91.0.0/24 services=10.96.0.0/16
t0=$(date +%s); now() { echo $(( $(date +%s) - t0 )); }
say() { echo "[$(now)s] $*"; }
B=$D/bin; P=$D/pki; R=$D/run; L=$D/log
mkdir -p "$B" "$P" "$R" "$L"
k() { "$B/kube" kubectl --kubeconfig "$D/kubeconfig" "$@"; }
alive() { [ -s "$R/$1.pid" ] && kill -0 "$(cat "$R/$1.pid")" 2>/dev/null; }

# ---- 1. programs -----------------------------------------------------------------------------------------
missing=()
have() { command -v "$1" >/dev/null || missing+=("$2"); }
have etcd etcd-server; have openssl openssl; have ip iproute2; have nsenter util-linux
if [ "$level" = node ]; then
  have containerd containerd; have runc runc; have iptables iptables; have ctr containerd
  [ -x /usr/lib/cni/bridge ] || missing+=(containernetworking-plugins)
fi
if [ ${#missing[@]} -gt 0 ]; then
  say "apt: ${missing[*]}"
  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"; } >"$L/apt.log" 2>&1
fi
build() { # OUTPUT PACKAGE LDFLAGS
  [ -x "$B/$1" ] && return
  local s; s=$(date +%s)
  (cd "$here/kube" && CGO_ENABLED=0 nice go build -trimpath -ldflags "-s -w $3" -o "$B/$1.new" "$2" && mv "$B/$1.new" "$B/$1")
  say "built $1: $(( $(date +%s) - s ))s, $(( $(stat -c %s "$B/$1") / 1000000 )) MB"
}
v=k8s.io/component-base/version
build kube . "-X $v.gitVersion=v$V -X $v.gitMajor=1 -X $v.gitMinor=34 -X $v.gitCommit=0 -X $v.gitTreeState=clean"
build pause ./pause ""
u=helm.sh/helm/v3/pkg/chartutil
build helm helm.sh/helm/v3/cmd/helm "-X $u.k8sVersionMajor=1 -X $u.k8sVersionMinor=34"

parts="etcd apiserver forward controller-manager scheduler"; [ "$level" = api ] || parts="$parts containerd kubelet proxy dns"
up=yes; for n in $parts; do alive $n || up=no; done
if [ $up = yes ] && k get --raw /readyz >/dev/null 2>&1; then say "already up: export KUBECONFIG=$D/kubeconfig"; exit 0; fi
"$here/down.sh" "$D" >/dev/null 2>&1 || true
mkdir -p "$R" "$L"

# ---- 2. a network namespace without a way out ---------------------------------------------------------------
ip netns add "$ns"; echo "$ns" > "$R/netns"
N=/run/netns/$ns
in_ns() { nsenter --net="$N" "$@"; }
in_ns ip link set lo up
in_ns ip link add node0 type bridge && in_ns ip addr add $nodeip/32 dev node0 && in_ns ip link set node0 up
# service and pod addresses have nowhere to go but kube-proxy's rules and the bridge; no default route exists
in_ns ip route add $services dev node0
in_ns sh -c 'echo 1 > /proc/sys/net/ipv4/ip_forward'

start() { # NAME COMMAND...
  local n=$1; shift
  setsid nsenter --net="$N" "$@" >"$L/$n.log" 2>&1 </dev/null &
  echo $! > "$R/$n.pid"
}
wait_for() { # SECONDS WHAT COMMAND...
  local end=$(( $(date +%s) + $1 )) what=$2; shift 2
  until "$@" >/dev/null 2>&1; do
    [ "$(date +%s)" -lt $end ] || { echo "up.sh: waited too long for $what; see $L" >&2; exit 1; }
    sleep 0.3
  done
  say "$what"
}

# ---- 3. keys ---------------------------------------------------------------------------------------------
if [ ! -s "$P/tokens.csv" ]; then
  cd "$P"
  openssl req -x509 -newkey rsa:2048 -nodes -days 30 -subj /CN=test-ca -keyout ca.key -out ca.crt 2>/dev/null
  cert() { # NAME SUBJECT SAN [CA]
    openssl req -newkey rsa:2048 -nodes -subj "$2" -keyout "$1.key" -out "$1.csr" 2>/dev/null
    openssl x509 -req -in "$1.csr" -CA "${4:-ca}.crt" -CAkey "${4:-ca}.key" -CAcreateserial -days 30 -out "$1.crt" \
      -extfile <(printf 'extendedKeyUsage=serverAuth,clientAuth\n%s' "${3:+subjectAltName=$3}") 2>/dev/null
  }
  cert apiserver /CN=kube-apiserver "DNS:localhost,DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.cluster.local,IP:127.0.0.1,IP:$nodeip,IP:10.96.0.1"
  cert kubelet-client /O=system:masters/CN=kube-apiserver-kubelet-client ""
  cert kubelet "/CN=$node" "DNS:$node,IP:$nodeip"
  openssl req -x509 -newkey rsa:2048 -nodes -days 30 -subj /CN=front-ca -keyout front-ca.key -out front-ca.crt 2>/dev/null
  cert front /CN=front-proxy-client "" front-ca    # for API extensions (metrics, KEDA)
  openssl genrsa -out sa.key 2048 2>/dev/null
  tok() { openssl rand -hex 16; }
  { echo "$(tok),admin,admin,system:masters"
    echo "$(tok),system:kube-controller-manager,kcm,"
    echo "$(tok),system:kube-scheduler,sched,"
    echo "$(tok),system:node:$node,node,system:nodes"
    echo "$(tok),system:kube-proxy,proxy,"
    echo "$(tok),cluster-dns,dns,"; } > tokens.new
  chmod 600 tokens.new ./*.key; mv tokens.new tokens.csv
fi
cd "$D"
conf() { # FILE USER SERVER
  local t; t=$(awk -F, -v u="$2" '$2==u{print $1}' "$P/tokens.csv")
  cat > "$1" <<Y
apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: "https://$3", certificate-authority-data: $(base64 -w0 < "$P/ca.crt")}}]
users: [{name: u, user: {token: $t}}]
contexts: [{name: c, context: {cluster: c, user: u}}]
current-context: c
Y
  chmod 600 "$1"
}
conf "$D/kubeconfig" admin 127.0.0.1:$port              # from the host
conf "$P/admin.conf" admin $nodeip:6443                  # from inside the namespace
conf "$P/kcm.conf" system:kube-controller-manager $nodeip:6443
conf "$P/sched.conf" system:kube-scheduler $nodeip:6443
conf "$P/kubelet.conf" system:node:$node $nodeip:6443
conf "$P/proxy.conf" system:kube-proxy $nodeip:6443
conf "$P/dns.conf" cluster-dns $nodeip:6443

# ---- 4. control plane ---------------------------------------------------------------------------------------
start etcd etcd --data-dir "$D/etcd" --listen-client-urls http://127.0.0.1:2379 --advertise-client-urls http://127.0.0.1:2379 \
  --listen-peer-urls http://127.0.0.1:2380 --initial-advertise-peer-urls http://127.0.0.1:2380 --initial-cluster default=http://127.0.0.1:2380 --log-level warn
start apiserver "$B/kube" apiserver --etcd-servers=http://127.0.0.1:2379 --bind-address=0.0.0.0 --secure-port=6443 --advertise-address=$nodeip \
  --service-cluster-ip-range=$services --tls-cert-file="$P/apiserver.crt" --tls-private-key-file="$P/apiserver.key" --client-ca-file="$P/ca.crt" \
  --token-auth-file="$P/tokens.csv" --authorization-mode=Node,RBAC --enable-admission-plugins=NodeRestriction --allow-privileged=true \
  --service-account-key-file="$P/sa.key" --service-account-signing-key-file="$P/sa.key" --service-account-issuer=https://kubernetes.default.svc \
  --kubelet-client-certificate="$P/kubelet-client.crt" --kubelet-client-key="$P/kubelet-client.key" --kubelet-certificate-authority="$P/ca.crt" \
  --kubelet-preferred-address-types=InternalIP --requestheader-client-ca-file="$P/front-ca.crt" --requestheader-allowed-names=front-proxy-client \
  --requestheader-username-headers=X-Remote-User --requestheader-group-headers=X-Remote-Group --requestheader-extra-headers-prefix=X-Remote-Extra- \
  --proxy-client-cert-file="$P/front.crt" --proxy-client-key-file="$P/front.key"
setsid "$B/kube" forward "$N" "out:127.0.0.1:$port=$nodeip:6443" ${K8S_FORWARDS:-} >"$L/forward.log" 2>&1 </dev/null & echo $! > "$R/forward.pid"
wait_for 120 "API server ready" k get --raw /readyz
start controller-manager "$B/kube" controller-manager --kubeconfig="$P/kcm.conf" --authentication-kubeconfig="$P/kcm.conf" --authorization-kubeconfig="$P/kcm.conf" \
  --service-account-private-key-file="$P/sa.key" --root-ca-file="$P/ca.crt" --cluster-signing-cert-file="$P/ca.crt" --cluster-signing-key-file="$P/ca.key" \
  --use-service-account-credentials --leader-elect=false --bind-address=127.0.0.1 --allocate-node-cidrs=false
start scheduler "$B/kube" scheduler --kubeconfig="$P/sched.conf" --authentication-kubeconfig="$P/sched.conf" --authorization-kubeconfig="$P/sched.conf" \
  --leader-elect=false --bind-address=127.0.0.1
k apply -f - >/dev/null <<Y
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: cluster-dns}
rules: [{apiGroups: ["", discovery.k8s.io], resources: [services, endpointslices], verbs: [get, list, watch]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: cluster-dns}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: cluster-dns}
subjects: [{kind: User, name: cluster-dns, apiGroup: rbac.authorization.k8s.io}]
---
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: {name: local, annotations: {storageclass.kubernetes.io/is-default-class: "true"}}
provisioner: kubernetes.io/no-provisioner
volumeBindingMode: WaitForFirstConsumer
Y
for i in $(seq 1 "${K8S_VOLUMES:-8}"); do  # local volumes, claimed by whoever asks (sizes are not enforced)
  mkdir -p "$D/volumes/$i"
  echo "---
apiVersion: v1
kind: PersistentVolume
metadata: {name: local-$i}
spec:
  capacity: {storage: 100Gi}
  accessModes: [ReadWriteOnce]
  persistentVolumeReclaimPolicy: Retain
  storageClassName: local
  local: {path: $D/volumes/$i}
  nodeAffinity: {required: {nodeSelectorTerms: [{matchExpressions: [{key: kubernetes.io/hostname, operator: In, values: [$node]}]}]}}"
done | k apply -f - >/dev/null
wait_for 60 "default service account" k get sa default
[ "$level" = node ] || { say "control plane up: export KUBECONFIG=$D/kubeconfig"; exit 0; }

# ---- 5. the node ---------------------------------------------------------------------------------------------
mkdir -p "$D/cni" "$D/containerd" "$D/kubelet" "$D/pod-logs"
cat > "$D/cni/10-bridge.conflist" <<Y
{"cniVersion": "0.4.0", "name": "pods", "plugins": [
 {"type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": false, "hairpinMode": true,
  "ipam": {"type": "host-local", "ranges": [[{"subnet": "$pods"}]], "routes": [{"dst": "0.0.0.0/0"}], "dataDir": "$R/cni-ipam"}},
 {"type": "portmap", "capabilities": {"portMappings": true}}]}
Y
cat > "$D/containerd.toml" <<Y
version = 2
root = "$D/containerd"
state = "$R/containerd"
[grpc]
  address = "$R/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/pause:1"
  stream_server_address = "127.0.0.1"
  restrict_oom_score_adj = true   # a machine without CAP_SYS_RESOURCE may not lower it
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "$D/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "${K8S_SNAPSHOTTER:-overlayfs}"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.nvidia]
      runtime_type = "io.containerd.runc.v2"
Y
: > "$D/resolv.conf"
cat > "$D/kubelet.yaml" <<Y
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: $nodeip
authentication: {anonymous: {enabled: false}, webhook: {enabled: false}, x509: {clientCAFile: $P/ca.crt}}
authorization: {mode: AlwaysAllow}
tlsCertFile: $P/kubelet.crt
tlsPrivateKeyFile: $P/kubelet.key
readOnlyPort: 0
healthzBindAddress: 127.0.0.1
cgroupDriver: cgroupfs
cgroupRoot: /$ns
failCgroupV1: false
failSwapOn: false
clusterDNS: [$nodeip]
clusterDomain: cluster.local
resolvConf: $D/resolv.conf
containerRuntimeEndpoint: unix://$R/containerd.sock
podLogsDir: $D/pod-logs
volumePluginDir: $D/kubelet/volume-plugins
imageGCHighThresholdPercent: 100
evictionHard: {memory.available: 100Mi, nodefs.available: 1%, imagefs.available: 1%, nodefs.inodesFree: 1%}
maxPods: 60
nodeStatusUpdateFrequency: 5s
Y
cat > "$D/proxy.yaml" <<Y
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
bindAddress: $nodeip
clientConnection: {kubeconfig: $P/proxy.conf}
clusterCIDR: $pods
hostnameOverride: $node
mode: iptables
conntrack: {maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}
healthzBindAddress: 127.0.0.1:10256
metricsBindAddress: 127.0.0.1:10249
Y
start containerd containerd --config "$D/containerd.toml"
wait_for 60 "containerd" ctr -a "$R/containerd.sock" version
"$here/archive.py" -o "$R/pause.tar" -n localhost/pause:1 --file "$B/pause:/pause" --entrypoint /pause --user 65535
ctr -a "$R/containerd.sock" -n k8s.io images import "$R/pause.tar" >/dev/null
if [ -f /sys/fs/cgroup/cgroup.controllers ]; then mkdir -p "/sys/fs/cgroup/$ns"; else   # cgroup v2, or every v1 hierarchy
  for c in /sys/fs/cgroup/*/; do [ -f "$c/tasks" ] && mkdir -p "$c$ns"; done
fi
# the kubelet sets these for the whole machine: they are put back below
for f in vm/overcommit_memory kernel/panic kernel/panic_on_oops; do echo "$f $(cat /proc/sys/$f)"; done > "$R/sysctl"
start kubelet "$B/kube" kubelet --config "$D/kubelet.yaml" --kubeconfig "$P/kubelet.conf" --root-dir "$D/kubelet" --cert-dir "$P" \
  --hostname-override $node --node-ip $nodeip
wait_for 120 "node ready" k wait --for=condition=Ready node/$node --timeout=1s
while read -r f val; do echo "$val" > /proc/sys/$f; done < "$R/sysctl"
start proxy "$B/kube" proxy --config "$D/proxy.yaml"
start dns "$B/kube" dns --kubeconfig "$P/dns.conf" --listen $nodeip:53
say "cluster up: export KUBECONFIG=$D/kubeconfig   images: ctr -a $R/containerd.sock -n k8s.io images import FILE.tar"
