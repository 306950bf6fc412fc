"""What the enrolment page says, in Vietnamese and English."""

from dataclasses import dataclass

from trien_server.core.delivered_text import Language


@dataclass(frozen=True, kw_only=True)
class Words:
    """The texts of the page in one language."""

    title: str
    lead: str
    before: str
    once: str
    begin: str
    waits: str
    waits_code: str
    begin_now: str
    scan: str
    here: str
    open_app: str
    type_secret: str
    qr: str
    first_code: str
    first_code_hint: str
    question: str
    confirm: str
    begun_before: str
    wrong_one: str
    wrong: str
    no_more: str
    done: str
    done_lead: str
    unknown: str
    over: str
    started: str
    not_digits: str
    locked: str
    busy: str
    not_now: str
    not_here: str
    what_to_do: str


WORDS: dict[Language, Words] = {
    Language.VIETNAMESE: Words(
        title="Đăng ký ứng dụng tạo mã ký",
        lead="Sau bước này, ứng dụng trên điện thoại của Quý vị sẽ tạo các mã dùng một lần để ký văn bản.",
        before="Trước khi bắt đầu, hãy cài một ứng dụng tạo mã trên điện thoại (loại ứng dụng quét được mã QR).",
        once="Mã QR chỉ hiện một lần. Hãy bắt đầu khi Quý vị có điện thoại trong tay và không có ai nhìn màn hình.",
        begin="Bắt đầu",
        waits="Vì Quý vị đã từng có ứng dụng tạo mã, việc đăng ký này chỉ bắt đầu được từ {time}.",
        waits_code="Còn giữ ứng dụng cũ? Nhập mã mà ứng dụng đó đang hiện để bắt đầu ngay.",
        begin_now="Bắt đầu ngay",
        scan="1. Quét mã QR này bằng ứng dụng trên điện thoại.",
        here="Đang xem trang này trên chính điện thoại đó?",
        open_app="Mở trong ứng dụng",
        type_secret="Hoặc nhập khóa này vào ứng dụng:",
        qr="Mã QR để đăng ký ứng dụng tạo mã",
        first_code="2. Nhập mã mà ứng dụng đang hiện",
        first_code_hint="{digits} chữ số",
        question="Câu hỏi để ứng dụng trả lời:",
        confirm="Hoàn tất",
        begun_before=(
            "Việc đăng ký đã được bắt đầu và mã QR đã hiện một lần. Nếu ứng dụng đã có mã, hãy nhập mã đó."
            " Nếu chưa, hãy xin cán bộ phụ trách gửi lại mã đăng ký."
        ),
        wrong_one="Mã không đúng. Quý vị còn thử được 1 lần. Hãy đợi mã mới và nhập mã đó.",
        wrong="Mã không đúng. Quý vị còn thử được {count} lần. Hãy đợi mã mới và nhập mã đó.",
        no_more="Mã không đúng quá nhiều lần nên việc đăng ký đã bị hủy.",
        done="Đã đăng ký xong",
        done_lead="Từ nay ứng dụng này tạo mã ký của Quý vị. Quý vị có thể đóng trang này.",
        unknown="Đường dẫn này không đúng, đã được dùng hoặc đã bị thay bằng đường dẫn mới hơn.",
        over="Việc đăng ký này đã kết thúc.",
        started="Việc đăng ký này đã được bắt đầu ở nơi khác.",
        not_digits="Mã chỉ gồm 6 đến 8 chữ số.",
        locked="Đã nhập sai quá nhiều lần. Hãy thử lại sau, hoặc đợi đến giờ đăng ký.",
        busy="Có quá nhiều yêu cầu. Hãy thử lại sau một phút.",
        not_now="Máy chủ chưa phục vụ được lúc này. Hãy thử lại sau ít phút; mã đăng ký vẫn dùng được.",
        not_here="Không có trang này.",
        what_to_do="Nếu cần giúp, hãy hỏi cán bộ phụ trách.",
    ),
    Language.ENGLISH: Words(
        title="Set up your signing codes",
        lead="After this step the app on your phone makes the one-time codes by which you sign documents.",
        before="Before you begin, install an authenticator app on your phone (one that scans QR codes).",
        once="The QR code is shown once. Begin when you have your phone at hand and nobody else sees the screen.",
        begin="Begin",
        waits="Since you have or had an app that makes your codes, you can begin from {time} on.",
        waits_code="Do you still have the old app? Type the code that it shows now, and begin at once.",
        begin_now="Begin now",
        scan="1. Scan this QR code with the app on your phone.",
        here="Do you read this on that very phone?",
        open_app="Open in the app",
        type_secret="Or type this key into the app:",
        qr="QR code to set up the app",
        first_code="2. Type the code that the app shows now",
        first_code_hint="{digits} digits",
        question="The question that the app answers:",
        confirm="Finish",
        begun_before=(
            "This was begun, and the QR code was shown once. If the app has it, type the code that the app shows."
            " If not, ask your officer for a new enrolment code."
        ),
        wrong_one="The code is not right. You have 1 more try. Wait for the next code, and type that.",
        wrong="The code is not right. You have {count} more tries. Wait for the next code, and type that.",
        no_more="The code was not right too often, so this was ended.",
        done="It is set up",
        done_lead="From now on this app makes your signing codes. You can close this page.",
        unknown="This link is not right, was used, or has been replaced by a newer one.",
        over="This is over.",
        started="This was begun somewhere else.",
        not_digits="A code is 6 to 8 digits.",
        locked="Too many wrong codes. Try again later, or wait until the time has come.",
        busy="There are too many requests. Please try again in a minute.",
        not_now="The server cannot do it at the moment. Please try again in some minutes; your link stays good.",
        not_here="There is no such page.",
        what_to_do="If you need help, ask your officer.",
    ),
}


def language_of(accepted: str, *, preferred: Language) -> Language:
    """Returns the first in quality of the languages of `Accept-Language` that the page knows; else `preferred`."""
    best, found = 0.0, preferred
    for part in accepted.split(",")[:20]:
        tag, _, quality = part.strip().partition(";")
        try:
            weight = float(quality.strip().removeprefix("q=")) if quality else 1.0
        except ValueError:
            continue
        for language in Language:
            if tag.strip().lower().split("-")[0] == language and weight > best:
                best, found = weight, language
    return found
