"""The words of an evidence report, Vietnamese and English."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Words:
    """One language's words. `{…}` are filled in."""

    title: str
    made: str
    good: str
    bad: str
    note: str
    page: str
    sections: dict[str, str]
    labels: dict[str, str]
    assurances: dict[str, str]
    authenticators: dict[str, str]
    kinds: dict[str, str]
    results: dict[str, str]
    checks: dict[str, str]
    findings: dict[str, str]
    columns: dict[str, str]
    absent: str
    steps: tuple[str, ...]
    receipt: str
    keys: str
    items: str


VIETNAMESE = Words(
    title="BÁO CÁO BẰNG CHỨNG CHỮ KÝ SỐ",
    made="Lập lúc {made} bằng lệnh trien audit report, từ bản ghi {entry}",
    good="Không phát hiện sai lệch nào. {verified} nội dung đã được kiểm tra bằng mật mã; {told} nội dung chỉ là thông tin do "
    "máy chủ cung cấp (mục 6).",
    bad="CÓ {failed} NỘI DUNG KIỂM TRA KHÔNG ĐẠT (mục 6). Không sử dụng báo cáo này làm bằng chứng khi chưa làm rõ.",
    note="Tên người, tên cơ quan và tên ứng dụng là tên đang có trong hệ thống khi lập báo cáo.",
    page="Trang {page}/{pages}",
    sections={
        "who": "1. Ai ký, khi nào, theo thẩm quyền nào",
        "certificate": "2. Chứng thư số",
        "items": "3. Nội dung đã ký",
        "proof": "4. Chứng minh trong nhật ký",
        "later": "5. Sự kiện tiếp theo của cùng yêu cầu",
        "checks": "6. Kết quả kiểm tra",
        "steps": "7. Tự kiểm tra, không cần hệ thống này",
        "appendix": "Phụ lục. Văn bản của giấy biên nhận và khóa nhật ký",
    },
    labels={
        "signer": "Người ký (chủ khóa)",
        "organization": "Cơ quan",
        "approver": "Người phê duyệt",
        "authenticator": "Phương thức xác thực",
        "assurance": "Nơi nhập mã xác thực",
        "approve_time": "Thời điểm phê duyệt",
        "time": "Thời điểm ghi nhật ký",
        "kind": "Loại sự kiện",
        "client": "Ứng dụng yêu cầu ký",
        "credential": "Khóa và chứng thư đã dùng",
        "reason": "Lý do từ chối",
        "subject": "Chủ thể",
        "issuer": "Cơ quan cấp",
        "serial_number": "Số sê-ri",
        "validity": "Hiệu lực",
        "sha256": "SHA-256 của chứng thư",
        "algorithm": "Thuật toán",
        "count": "Số lượng văn bản",
        "document": "Tệp đã đối chiếu",
        "position": "Vị trí trong nhật ký",
        "leaf_hash": "Mã băm của bản ghi",
        "origin": "Tên nhật ký",
        "size": "Số bản ghi đã niêm phong",
        "root": "Gốc cây Merkle",
        "log_key": "Khóa đầu tiên của nhật ký",
    },
    assurances={
        "CLIENT_COLLECTED_OTP": "qua ứng dụng yêu cầu ký",
        "SIGNER_CHANNEL_OTP": "qua kênh riêng của người ký",
    },
    authenticators={
        "TOTP": "mật khẩu một lần theo thời gian (TOTP, RFC 6238)",
        "HOTP": "mật khẩu một lần theo bộ đếm (HOTP, RFC 4226)",
        "OCRA": "mã trả lời thách thức gắn với văn bản (OCRA, RFC 6287)",
        "SMS": "mật khẩu một lần gửi qua SMS",
        "EMAIL": "mật khẩu một lần gửi qua thư điện tử",
    },
    kinds={
        "signing_granted": "cho phép ký",
        "signing_resumed": "ký tiếp yêu cầu đã cho phép",
        "authorizations_approved": "phê duyệt",
        "refused": "từ chối",
    },
    results={"VERIFIED": "ĐÃ KIỂM TRA", "TOLD": "MÁY CHỦ CHO BIẾT", "FAILED": "KHÔNG ĐẠT"},
    checks={
        "ENTRY": "Thời điểm, loại và chi tiết của bản ghi đúng là những gì nhật ký cam kết, kể cả mã băm của từng văn bản",
        "LOG": "Bản ghi nằm trong nhật ký mà khóa của nhật ký đã ký niêm phong",
        "LOG_KEY": "Khóa nhật ký là khóa đã được công bố",
        "ITEMS": "Biên nhận riêng của từng văn bản dẫn tới đúng bản ghi này",
        "CERTIFICATE": "Chứng thư đúng là chứng thư ghi trong bản ghi, còn hiệu lực lúc ký, mỗi chứng thư do chứng thư kế tiếp cấp",
        "CERTIFICATE_AUTHORITY": "Chuỗi chứng thư dẫn tới cơ quan cấp chứng thư được tin cậy",
        "SIGNATURES": "Mọi chữ ký đúng với chứng thư và với mã băm đã ghi",
        "DOCUMENT": "Tệp được đối chiếu có mã băm nằm trong bản ghi",
        "PEOPLE": "Người phê duyệt, phương thức xác thực và các tên gọi",
    },
    findings={
        "ERASED": "chi tiết của bản ghi đã được xóa theo quy định",
        "NO_CHECKPOINT": "bản ghi chưa được niêm phong",
        "NOT_KNOWN": "máy chủ không còn giữ chứng thư của lúc ký",
        "OTHER_CERTIFICATE": "chứng thư khác với chứng thư trong bản ghi",
        "NOT_VALID_THEN": "một chứng thư không có hiệu lực vào lúc ký",
        "ISSUER": "một chứng thư không do chứng thư kế tiếp cấp",
        "NOT_KEPT": "máy chủ không còn giữ chữ ký (7 ngày); chữ ký nằm trong văn bản đã ký",
        "NO_CERTIFICATE": "không có chứng thư để kiểm tra",
    },
    columns={
        "index": "STT",
        "digest": "Mã băm của văn bản",
        "result": "Chữ ký",
        "check": "Nội dung",
        "outcome": "Kết quả",
        "time": "Thời điểm",
        "entry": "Bản ghi",
    },
    absent="không có",
    steps=(
        "Lấy khóa nhật ký (log-keys) từ nơi công bố, không lấy từ báo cáo này, và so sánh với mục 4.",
        "Chép văn bản biên nhận ở phụ lục vào tệp receipt.txt rồi chạy: trien verify receipt receipt.txt --log-key log-keys. "
        "Tài liệu docs/auditor.md hướng dẫn từng bước chỉ với OpenSSL.",
        "Tính mã băm của văn bản, ví dụ: sha256sum van-ban.pdf, và so sánh với mục 3. Với PDF đã ký, mã băm tính trên phần được ký: "
        "trien verify van-ban.pdf.",
        "Chữ ký nằm trong văn bản đã ký được kiểm tra bằng phần mềm bất kỳ, ví dụ: pdfsig van-ban.pdf.",
    ),
    receipt="Biên nhận của bản ghi",
    keys="Khóa nhật ký (log-keys)",
    items="Biên nhận riêng của từng văn bản ({count}) nằm trong tệp JSON mà lệnh ghi khi có --json.",
)

ENGLISH = Words(
    title="EVIDENCE OF A DIGITAL SIGNATURE",
    made="Made at {made} by the command trien audit report, from the entry {entry}",
    good="No check failed. Verified by cryptography: {verified}; only told by the server: {told} (section 6).",
    bad="CHECKS THAT FAILED: {failed} (section 6). Do not use this report as evidence before that is cleared up.",
    note="The names of people, organizations and applications are those that the system has when the report is made.",
    page="Page {page}/{pages}",
    sections={
        "who": "1. Who signed, when, and by which authority",
        "certificate": "2. The certificate",
        "items": "3. What was signed",
        "proof": "4. The proof in the log",
        "later": "5. What followed of the same request",
        "checks": "6. What was checked",
        "steps": "7. How to check it without this system",
        "appendix": "Appendix. The text of the receipt and the log's keys",
    },
    labels={
        "signer": "Signer (owner of the key)",
        "organization": "Organization",
        "approver": "Approved by",
        "authenticator": "How it was approved",
        "assurance": "Where the code was typed",
        "approve_time": "Time of the approval",
        "time": "Time of the entry",
        "kind": "Event",
        "client": "Requesting application",
        "credential": "Credential",
        "reason": "Reason of the refusal",
        "subject": "Subject",
        "issuer": "Issuer",
        "serial_number": "Serial number",
        "validity": "Valid",
        "sha256": "SHA-256 of the certificate",
        "algorithm": "Algorithm",
        "count": "Documents",
        "document": "File that was compared",
        "position": "Position in the log",
        "leaf_hash": "Hash of the entry's leaf",
        "origin": "Name of the log",
        "size": "Entries that are sealed",
        "root": "Root of the Merkle tree",
        "log_key": "First key of the log",
    },
    assurances={
        "CLIENT_COLLECTED_OTP": "in the requesting application",
        "SIGNER_CHANNEL_OTP": "in the signer's own channel",
    },
    authenticators={
        "TOTP": "one-time password by time (TOTP, RFC 6238)",
        "HOTP": "one-time password by counter (HOTP, RFC 4226)",
        "OCRA": "answer to a challenge bound to the documents (OCRA, RFC 6287)",
        "SMS": "one-time password sent by SMS",
        "EMAIL": "one-time password sent by e-mail",
    },
    kinds={
        "signing_granted": "signing was granted",
        "signing_resumed": "granted signing was resumed",
        "authorizations_approved": "approval",
        "refused": "refusal",
    },
    results={"VERIFIED": "VERIFIED", "TOLD": "TOLD BY THE SERVER", "FAILED": "FAILED"},
    checks={
        "ENTRY": "The entry's time, kind and details are what the log commits to, and so is the digest of each document",
        "LOG": "The entry is in the log that the log's key has signed",
        "LOG_KEY": "The log's key is the one that was published",
        "ITEMS": "The receipt of each document leads to this entry",
        "CERTIFICATE": "The certificate is the one that the entry names, was valid then, and each was issued by the next",
        "CERTIFICATE_AUTHORITY": "The certificate's chain leads to a trusted authority",
        "SIGNATURES": "Every signature is right for the certificate and the digest in the entry",
        "DOCUMENT": "The digest of the compared file is in the entry",
        "PEOPLE": "Who approved, in which way, and all names",
    },
    findings={
        "ERASED": "the entry's details were erased, as the rules say",
        "NO_CHECKPOINT": "the entry is not sealed yet",
        "NOT_KNOWN": "the server no longer has the certificate of then",
        "OTHER_CERTIFICATE": "it is another certificate than the entry's",
        "NOT_VALID_THEN": "a certificate was not valid when it was signed",
        "ISSUER": "a certificate was not issued by the next one",
        "NOT_KEPT": "the server no longer has the signatures (7 days); they are in the signed documents",
        "NO_CERTIFICATE": "there is no certificate to check them with",
    },
    columns={
        "index": "No.",
        "digest": "Digest of the document",
        "result": "Signature",
        "check": "Fact",
        "outcome": "Result",
        "time": "Time",
        "entry": "Entry",
    },
    absent="none",
    steps=(
        "Get the log's keys (log-keys) from where they are published, not from this report, and compare them with section 4.",
        "Copy the receipt of the appendix into a file receipt.txt and run: trien verify receipt receipt.txt --log-key log-keys. "
        "docs/auditor.md shows each step with nothing but OpenSSL.",
        "Make the document's digest, for instance: sha256sum document.pdf, and compare it with section 3. Of a signed PDF the "
        "digest is over the part that is signed: trien verify document.pdf.",
        "The signature in the signed document can be verified by any software, for instance: pdfsig document.pdf.",
    ),
    receipt="The entry's receipt",
    keys="The log's keys (log-keys)",
    items="The receipts of each document ({count}) are in the JSON file that the command writes with --json.",
)

WORDS = {"vi": VIETNAMESE, "en": ENGLISH}
